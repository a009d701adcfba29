"""Applies what a trial's compute asks for to a loaded pipeline, in the order in which the pieces stand on each other.

It comes after the attention kernel was set and the ranks of an image shared it, and before weights move. Attention and
feed-forward are fused, then quantised, so that what is joined is quantised as one, and then norms, which round for
that; then text and decode, then compiled blocks, and last CUDA graphs, which capture all of that.

The pieces are `zimage.fast`'s, and imported where they are asked for: a compiler is loaded with some of them. What they
change is put back by an `ExitStack`, the last first. The transformer's layers stay as they are: to part what was joined
takes its weights a second time, quantised ones have no way back, and nobody uses the pipeline once it is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch

from zbench.config import ComputeConfig
from zbench.engines.reference.graphed import GraphedForward
from zbench.errors import ConfigError
from zbench.methods import attention, graphs, quantization
from zbench.trial import Trial


class Sped(NamedTuple):
    """What came of it."""

    quantized: dict[str, int]  # layers by kind; empty where there are none
    graphed: list[GraphedForward]


def speed(pipe: Any, trial: Trial, captured: str, sharded: Any, undo: ExitStack) -> Sped:
    """Apply all of it; `captured` is `none`, `stages` or `all`, `sharded` what the ranks of an image share, or None.

    Raises ConfigError, naming the knob, for what a piece refuses; `undo` then has what was applied before.
    """
    compute = trial.compute
    _fuse(pipe.transformer, compute)
    quantized = _quantize(pipe.transformer, compute)
    _speed_text(pipe, compute, undo)
    _speed_decode(pipe.vae, compute, undo)
    if compute.compile:
        _compile(pipe.transformer, sharded, undo)
    return Sped(quantized, _capture(graphable(pipe, trial, captured), undo))


def graphable(pipe: Any, trial: Trial, captured: str) -> list[Any]:
    """The modules whose forwards become one launch each; what is moved or split stays as it is."""
    if captured == graphs.NONE:
        return []
    stages = graphs.stages_that_stay(trial.parallel, trial.offload)
    modules = [pipe.transformer] if captured == graphs.ALL else []
    modules += [pipe.vae.decoder] if "vae" in stages else []
    return [*modules, *([pipe.text_encoder] if "text_encoder" in stages else [])]


def _fuse(transformer: Any, compute: ComputeConfig) -> None:
    qkv, rope = compute.qkv == "fused", compute.rope == "real"
    if qkv or rope:
        from zbench.zimage.fast.attention import fuse_attention

        with _of_knob("qkv", "fused") if qkv else _of_knob("rope", "real"):
            fuse_attention(transformer, qkv=qkv, rope=rope, in_fp8=compute.attention_backend == attention.CUDNN_FP8)
    if compute.ffn == "fused":
        from zbench.zimage.fast.feed_forward import fuse_feed_forward

        with _of_knob("ffn", "fused"):
            fuse_feed_forward(transformer)


def _quantize(transformer: Any, compute: ComputeConfig) -> dict[str, int]:
    """The count of quantised layers by kind."""
    kind = compute.quantization
    if kind == quantization.NONE:
        return {}
    from zbench.zimage.fast.quantization import count_quantised, quantize

    with _of_knob("quantization", kind):
        quantize(transformer, kind, compute.scope, quantization.KEPT_ENDS)
    if compute.norms == quantization.FUSED:
        from zbench.zimage.fast.fused_norms import fuse_norms

        with _of_knob("norms", compute.norms):
            fuse_norms(transformer)
    return {kind: count_quantised(transformer)}


def _speed_text(pipe: Any, compute: ComputeConfig, undo: ExitStack) -> None:
    if compute.text == "padded":
        return
    from zbench.zimage.fast.ahead import run_ahead
    from zbench.zimage.fast.text import shorten_text

    with _of_knob("text", compute.text):
        undo.callback(shorten_text(pipe, compiled=compute.text == "compiled"))
    undo.callback(run_ahead(pipe))  # nothing waits for the text any more, nor for the rest


def _speed_decode(vae: Any, compute: ComputeConfig, undo: ExitStack) -> None:
    if compute.decode == "eager":
        return
    from zbench.zimage.fast.decode import speed_decode

    with _of_knob("decode", compute.decode):
        undo.callback(speed_decode(vae, compute.decode))


def _compile(transformer: Any, sharded: Any, undo: ExitStack) -> None:
    """Compile the blocks, whole where their shards allow it, and in the order in which these communicate.

    In pieces, cache-dit's hooks are one function for torch, of which each kind of block is a variant: more than 8.
    """
    whole, options = (True, None) if sharded is None else (sharded.compiles_whole, sharded.compile_options)
    if not whole:
        from zbench.zimage.fast.shapes import each_shape

        undo.enter_context(each_shape())
    transformer.compile_repeated_blocks(fullgraph=whole, options=options)


def _capture(modules: list[Any], undo: ExitStack) -> list[GraphedForward]:
    if not modules:
        return []
    pool = torch.cuda.graph_pool_handle()
    made = [GraphedForward(module, pool) for module in modules]
    for graphed in made:
        undo.callback(graphed.close)
    return made


@contextmanager
def _of_knob(knob: str, value: str) -> Iterator[None]:
    """What a piece refuses is an error of its knob."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise ConfigError(f"compute.{knob}", value, str(error)) from error
