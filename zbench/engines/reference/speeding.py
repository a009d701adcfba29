"""Applies what a trial's compute asks for to a loaded pipeline, in the order in which the pieces stand on each other.

It comes after the attention kernel was set and the ranks of an image shared it, and before weights move. Attention and
feed-forward are fused, then quantised, so that what is joined is quantised as one; then text and decode, then compiled
blocks, and last CUDA graphs, which capture all of that.

The pieces are `zimage.fast`'s and imported where they are asked for. What they change is put back by an `ExitStack`,
the last first. Quantised weights stay as they are, for nobody keeps the others, and so does what they are joined in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any, NamedTuple

from zbench.errors import ConfigError
from zbench.methods import graphs, quantization
from zbench.trial import Trial

Undo = Callable[[], None]


class Sped(NamedTuple):
    """What came of it."""

    quantized: dict[str, int]  # layers by kind; empty where there are none
    graphed: list[Any]  # `graphed.GraphedForward`s


def speed(pipe: Any, trial: Trial, captured: str, sharded: Any, undo: ExitStack) -> Sped:
    """Apply all of it; `captured` is `none`, `stages` or `all`, `sharded` what the ranks of an image share, or None.

    Raises ConfigError, naming the knob, for what a piece refuses; `undo` then has what was applied before.
    """
    compute = trial.compute
    quantized = _transformer(pipe.transformer, trial, undo)
    if compute.text != "padded":
        shorten_text = _piece("text", "shorten_text")
        compiled = compute.text == "compiled"
        undo.callback(_applied("text", compute.text, lambda: shorten_text(pipe, compiled=compiled)))
        undo.callback(_piece("ahead", "run_ahead")(pipe))  # nothing waits for the text any more, nor for the rest
    if compute.decode != "eager":
        speed_decode = _piece("decode", "speed_decode")
        undo.callback(_applied("decode", compute.decode, lambda: speed_decode(pipe.vae, compute.decode)))
    if compute.compile:
        _compile(pipe.transformer, sharded)
    return Sped(quantized, _capture(pipe, trial, captured, undo))


def graphable(pipe: Any, trial: Trial, captured: str) -> list[Any]:
    """The modules whose forwards become one launch each; what is moved or split stays as it is."""
    if captured == graphs.NONE:
        return []
    stages = graphs.stages_that_stay(trial.parallel, trial.offload)
    modules = [pipe.transformer] if captured == graphs.ALL else []
    modules += [pipe.vae.decoder] if "vae" in stages else []
    return [*modules, *([pipe.text_encoder] if "text_encoder" in stages else [])]


def _transformer(transformer: Any, trial: Trial, undo: ExitStack) -> dict[str, int]:
    """Fuse and quantise; the count of quantised layers by kind."""
    compute = trial.compute
    if compute.quantization != quantization.NONE:
        undo = ExitStack()  # never closed: layers that are quantised as one cannot be parted
    qkv, rope = compute.qkv == "fused", compute.rope == "real"
    if qkv or rope:
        fuse_attention = _piece("attention", "fuse_attention")
        key, value = ("qkv", "fused") if qkv else ("rope", "real")
        undo.callback(_applied(key, value, lambda: fuse_attention(transformer, qkv=qkv, rope=rope)))
    if compute.ffn == "fused":
        fuse_feed_forward = _piece("feed_forward", "fuse_feed_forward")
        undo.callback(_applied("ffn", "fused", lambda: fuse_feed_forward(transformer)))
    if compute.quantization == quantization.NONE:
        return {}
    quantize, count_quantised = _piece("quantization", "quantize"), _piece("quantization", "count_quantised")
    kind, scope = compute.quantization, compute.scope
    _applied("quantization", kind, lambda: quantize(transformer, kind, scope, quantization.KEPT_ENDS))
    return {kind: count_quantised(transformer)}


def _capture(pipe: Any, trial: Trial, captured: str, undo: ExitStack) -> list[Any]:
    modules = graphable(pipe, trial, captured)
    if not modules:
        return []
    import torch

    from zbench.engines.reference.graphed import GraphedForward

    pool = torch.cuda.graph_pool_handle()
    made = [GraphedForward(module, pool) for module in modules]
    for graphed in made:
        undo.callback(graphed.close)
    return made


def _compile(transformer: Any, sharded: Any) -> None:
    """Compile the blocks, whole where their shards allow it, and in the order in which these communicate."""
    whole, options = (True, None) if sharded is None else (sharded.compiles_whole, sharded.compile_options)
    transformer.compile_repeated_blocks(fullgraph=whole, options=options)


def _piece(module: str, name: str) -> Any:
    """An entry function of `zimage.fast`."""
    return getattr(import_module(f"zbench.zimage.fast.{module}"), name)


def _applied(knob: str, value: str, apply: Callable[[], Undo | None]) -> Undo:
    """Apply a piece; how to undo it. What it refuses is an error of its knob."""
    try:
        return apply() or _nothing
    except (ValueError, ImportError) as error:
        raise ConfigError(f"compute.{knob}", value, str(error)) from error


def _nothing() -> None:
    """There is nothing to put back."""
