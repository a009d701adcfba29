"""A SwiGLU in FP8 whose middle is one kernel: gate, multiply, find each row's largest value, round to FP8.

A compiler makes one kernel of this too, but one that reads its input twice: 145 us on an H100 for rows of 20,480 in and
10,240 out, where this one, which holds a row in registers, takes 82. The numbers are torchao's: a scale for each row
of activations, float8_e4m3fn, sums in float32. It needs Triton, which torch brings where it is built for CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.library import triton_op, wrap_triton

from zbench.zimage.fast.scaled import LARGEST, LEAST, ScaledRows, product

WARPS = 32


@triton.jit  # type: ignore[untyped-decorator]
def _gated_row(both, rows, scales, half, LARGEST: tl.constexpr, LEAST: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < half
    gate = tl.load(both + row * 2 * half + columns, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(both + row * 2 * half + half + columns, mask=inside, other=0.0).to(tl.float32)
    made = gate * tl.sigmoid(gate) * factor
    scale = tl.maximum(tl.max(tl.abs(made), axis=0), LEAST) / LARGEST
    tl.store(rows + row * half + columns, (made / scale).to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)


@triton_op("zbench::gated_rows", mutates_args={})
def gated_rows(both: Tensor) -> tuple[Tensor, Tensor]:
    """`both`: rows x twice the width, gates before factors. Returns rows x width in FP8, and rows x 1 scales."""
    count, half = both.shape[0], both.shape[1] // 2
    rows = torch.empty((count, half), dtype=torch.float8_e4m3fn, device=both.device)
    scales = torch.empty((count, 1), dtype=torch.float32, device=both.device)
    kernel = wrap_triton(_gated_row)[(count,)]
    kernel(both, rows, scales, half, LARGEST, LEAST, triton.next_power_of_2(half), num_warps=WARPS)
    return rows, scales


class GatedRowsFeedForward(nn.Module):
    """In place of a `FusedFeedForward` whose two layers torchao has quantised."""

    def __init__(self, w13: Any, w2: Any) -> None:
        """The layers of the one whose place it takes."""
        super().__init__()
        self.w13 = w13
        self.w2 = w2

    def forward(self, x: Any) -> Tensor:
        """What `w13` takes: batch x tokens x width, bfloat16 or `ScaledRows`; bfloat16 of that shape comes back."""
        both = self.w13(x)
        values, scales = gated_rows(both.flatten(0, -2).contiguous())
        return product(ScaledRows(values.unflatten(0, both.shape[:-1]), scales), self.w2.weight)
