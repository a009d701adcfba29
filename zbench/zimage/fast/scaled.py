"""Rows in FP8 as torchao's row-wise matmuls take them: float8_e4m3fn values, and a float32 scale for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LARGEST = 448.0
"""Of float8_e4m3fn."""
LEAST = 1e-12
"""Of a row's largest value, as torchao has it, so that a row of zeros has a scale."""


class ScaledRows(NamedTuple):
    """What a row-wise matmul reads: each value times the scale of its row."""

    values: Tensor  # ... x width, float8_e4m3fn, contiguous
    scales: Tensor  # all rows x 1, float32


def rounded(x: Tensor) -> ScaledRows:
    """`x`: ... x width. Each row's largest value becomes `LARGEST`."""
    whole = x.float()
    scales = whole.abs().amax(-1, keepdim=True).clamp(min=LEAST) / LARGEST
    return ScaledRows((whole / scales).to(torch.float8_e4m3fn), scales.reshape(-1, 1))


def product(rows: ScaledRows, weight: Any) -> Tensor:
    """Of rows and what torchao made of a linear layer's weight: ... x outputs, bfloat16, sums in float32."""
    made: Tensor = torch._scaled_mm(
        rows.values.flatten(0, -2),
        weight.qdata.t(),
        scale_a=rows.scales,
        scale_b=weight.scale.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=weight.mm_config.use_fast_accum,
    )
    return made.view(*rows.values.shape[:-1], -1)


class RowsLinear(nn.Module):
    """In place of a linear layer without a bias that torchao has quantised: it also takes rows that are in FP8."""

    def __init__(self, layer: Any, rounds: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        """`layer`: whose place it takes, and which keeps the weight. `rounds`: makes rows of what is in bfloat16."""
        super().__init__()
        self.layer = layer
        self.rounds = rounds

    def forward(self, x: Tensor | ScaledRows) -> Tensor:
        """... x width; bfloat16 comes back."""
        rows = x if isinstance(x, ScaledRows) else ScaledRows(*self.rounds(x.contiguous()))
        return product(rows, self.layer.weight)


def is_quantised(layer: Any) -> bool:
    """Whether torchao has quantised it."""
    return type(getattr(layer, "weight", None)).__module__.startswith("torchao.")
