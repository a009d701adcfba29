"""Matmuls of Z-Image's main blocks in FP8: torchao's, a scale for each row of weights and of activations.

Weights are quantised once, activations anew in each call, both to float8_e4m3fn; sums are kept in higher precision and
come out in bfloat16. Eager, the scales of activations take kernels of their own; a compiler joins these with what
stands before, and in a fused feed-forward `gated_rows` does. Quantise after layers were joined and before blocks are
compiled. Images are others than before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from zbench.zimage.fast.feed_forward import FusedFeedForward
from zbench.zimage.fast.limits import MULTIPLE
from zbench.zimage.fast.scaled import is_quantised

KINDS = ("fp8",)
SCOPES = {"attention": ("attention",), "ffn": ("feed_forward",), "both": ("attention", "feed_forward")}
"""Modules of a main block, by what a scope is called."""

LEAST_CAPABILITY = (8, 9)
"""Of an NVIDIA GPU: Ada, Hopper and later have FP8 tensor cores."""


def quantize(transformer: Any, kind: str, scope: str, keep_ends: int) -> None:
    """Quantise the linear layers of a ZImageTransformer2DModel's main blocks, in place and for good.

    `kind`: fp8. `scope`: attention (its projections), ffn, or both. `keep_ends`: how many blocks at each end stay as
    they are. Layers whose dimensions are no multiples of 16 stay too. Refiners, embedders, modulation and the final
    layer are never touched.

    Raises ValueError for weights that are not plain bfloat16, for a device that has no FP8, and where there is nothing
    to quantise; ImportError without torchao.
    """
    if kind not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}")
    if scope not in SCOPES:
        raise ValueError(f"scope={scope}: must be one of {', '.join(SCOPES)}")
    layers = list(quantisable(transformer, scope, keep_ends))
    if not layers:
        raise ValueError(
            f"nothing to quantise: of {len(transformer.layers)} blocks {keep_ends} at each end stay as they are, and "
            f"dimensions must be multiples of {MULTIPLE}"
        )
    for name, layer in layers:
        if type(layer.weight) is not nn.Parameter or layer.weight.dtype != torch.bfloat16:
            kind_of = f"{type(layer.weight).__name__} of {layer.weight.dtype}"
            raise ValueError(f"{name} has a {kind_of}; plain bfloat16 weights alone are quantised")
    _check_device(layers[0][1].weight.device)
    _quantize_layers(transformer, {id(layer) for _, layer in layers})
    if layers[0][1].weight.device.type == "cuda" and torch.version.hip is None:
        _join_middles(transformer)


def quantisable(transformer: Any, scope: str, keep_ends: int) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that `quantize` is about, with their names."""
    blocks = list(transformer.layers)
    for place, block in enumerate(blocks):
        if not keep_ends <= place < len(blocks) - keep_ends:
            continue
        for part in SCOPES[scope]:
            for name, layer in getattr(block, part).named_modules():
                fits = isinstance(layer, nn.Linear) and layer.weight is not None
                if fits and not any(size % MULTIPLE for size in layer.weight.shape):
                    yield f"layers.{place}.{part}.{name}", layer


def count_quantised(transformer: Any) -> int:
    """How many of its linear layers have weights of torchao's."""
    return sum(is_quantised(module) for module in transformer.modules() if isinstance(module, nn.Linear))


def _join_middles(transformer: Any) -> None:
    from zbench.zimage.fast.gated_rows import GatedRowsFeedForward  # Triton

    for block in transformer.layers:
        own = block.feed_forward
        if isinstance(own, FusedFeedForward) and is_quantised(own.w13) and is_quantised(own.w2):
            block.feed_forward = GatedRowsFeedForward(own.w13, own.w2).train(own.training)


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(f"torchao computes in FP8 on GPUs alone, and the weights are on {device.type}")
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"{name} has no FP8; it takes compute capability 8.9, as Ada and Hopper have")


def _quantize_layers(transformer: Any, wanted: set[int]) -> None:
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

    # its recommended settings of Inductor are the whole process's, and would be the next trial's too
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)
    quantize_(transformer, config, filter_fn=lambda module, _name: id(module) in wanted)
