"""RMS norm with what stands around it in a block, a kernel each: a row is read once, and held in registers.

`normed_rows` is norm, modulation and rounding to FP8; `added_rows` is norm, gate and residual; `added_and_normed_rows`
is the second and behind it the first; `rounded_rows` rounds and does nothing else. A compiler makes such kernels too,
but those read rows of 3,840 twice or three times, to find their lengths and largest values first: 81, 49 and 32 us on
an H100 for the third, the first and the last. Arithmetic is in float32; `fused_norms` says the same in torch. It needs
Triton, which torch brings where it is built for CUDA.

`factors`, float32 and contiguous, batch x 4 x width, is what a block's norms multiply with, weights and modulation in
one; `place` is the first of these that a kernel takes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from zbench.zimage.fast.scaled import LARGEST, LEAST

WARPS = 8
"""Of a row of 3,840: 16 values a thread, so that each has two loads of 16 bytes under way and no register spills."""


@triton.jit  # type: ignore[untyped-decorator]
def _rounded_row(  # type: ignore[no-untyped-def]
    x, values, scales, width, LARGEST: tl.constexpr, LEAST: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    read = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(read), axis=0), LEAST) / LARGEST
    tl.store(values + row * width + columns, (read / scale).to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)


@triton.jit  # type: ignore[untyped-decorator]
def _normed_row(  # type: ignore[no-untyped-def]
    x, factors, values, scales, tokens, width, PLACE: tl.constexpr, EPS: tl.constexpr, LARGEST: tl.constexpr,
    LEAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    read = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(factors + (row // tokens * 4 + PLACE) * width + columns, mask=inside, other=0.0)
    made = read * (1 / tl.sqrt(tl.sum(read * read, axis=0) / width + EPS)) * factor
    scale = tl.maximum(tl.max(tl.abs(made), axis=0), LEAST) / LARGEST
    tl.store(values + row * width + columns, (made / scale).to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)


@triton.jit  # type: ignore[untyped-decorator]
def _added_row(  # type: ignore[no-untyped-def]
    x, y, factors, sums, tokens, width, PLACE: tl.constexpr, EPS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    branch = tl.load(y + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    read = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(factors + (row // tokens * 4 + PLACE) * width + columns, mask=inside, other=0.0)
    normed = branch * (1 / tl.sqrt(tl.sum(branch * branch, axis=0) / width + EPS))
    tl.store(sums + row * width + columns, (read + normed * gate).to(sums.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _added_and_normed_row(  # type: ignore[no-untyped-def]
    x, y, factors, sums, values, scales, tokens, width, PLACE: tl.constexpr, EPS: tl.constexpr, LARGEST: tl.constexpr,
    LEAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    branch = tl.load(y + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    read = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(factors + (row // tokens * 4 + PLACE) * width + columns, mask=inside, other=0.0)
    normed = branch * (1 / tl.sqrt(tl.sum(branch * branch, axis=0) / width + EPS))
    total = (read + normed * gate).to(sums.dtype.element_ty)
    tl.store(sums + row * width + columns, total, mask=inside)
    factor = tl.load(factors + (row // tokens * 4 + PLACE + 1) * width + columns, mask=inside, other=0.0)
    read = total.to(tl.float32)  # what the next norm would read
    made = read * (1 / tl.sqrt(tl.sum(read * read, axis=0) / width + EPS)) * factor
    scale = tl.maximum(tl.max(tl.abs(made), axis=0), LEAST) / LARGEST
    tl.store(values + row * width + columns, (made / scale).to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)


@triton_op("zbench::rounded_rows", mutates_args={})
def rounded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x`: batch x tokens x width, contiguous. Returns the same shape in FP8, and rows x 1 scales."""
    batch, tokens, width = x.shape
    values = torch.empty((batch, tokens, width), dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty((batch * tokens, 1), dtype=torch.float32, device=x.device)
    kernel = wrap_triton(_rounded_row)[(batch * tokens,)]
    kernel(x, values, scales, width, LARGEST, LEAST, triton.next_power_of_2(width), num_warps=WARPS)
    return values, scales


@triton_op("zbench::normed_rows", mutates_args={})
def normed_rows(x: Tensor, factors: Tensor, place: int, eps: float) -> tuple[Tensor, Tensor]:
    """`x`: batch x tokens x width, contiguous. Returns the same shape in FP8, and rows x 1 scales."""
    batch, tokens, width = x.shape
    values = torch.empty((batch, tokens, width), dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty((batch * tokens, 1), dtype=torch.float32, device=x.device)
    kernel = wrap_triton(_normed_row)[(batch * tokens,)]
    block = triton.next_power_of_2(width)
    kernel(x, factors, values, scales, tokens, width, place, eps, LARGEST, LEAST, block, num_warps=WARPS)
    return values, scales


@triton_op("zbench::added_rows", mutates_args={})
def added_rows(x: Tensor, y: Tensor, factors: Tensor, place: int, eps: float) -> Tensor:
    """`x` and `y`: batch x tokens x width, contiguous. Returns `x` plus the gated norm of `y`, in the dtype of `x`."""
    batch, tokens, width = x.shape
    sums = torch.empty((batch, tokens, width), dtype=x.dtype, device=x.device)
    kernel = wrap_triton(_added_row)[(batch * tokens,)]
    kernel(x, y, factors, sums, tokens, width, place, eps, triton.next_power_of_2(width), num_warps=WARPS)
    return sums


@triton_op("zbench::added_and_normed_rows", mutates_args={})
def added_and_normed_rows(
    x: Tensor, y: Tensor, factors: Tensor, place: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What `added_rows` returns, then what `normed_rows` makes of that with the factors behind."""
    batch, tokens, width = x.shape
    sums = torch.empty((batch, tokens, width), dtype=x.dtype, device=x.device)
    values = torch.empty((batch, tokens, width), dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty((batch * tokens, 1), dtype=torch.float32, device=x.device)
    kernel = wrap_triton(_added_and_normed_row)[(batch * tokens,)]
    block = triton.next_power_of_2(width)
    kernel(x, y, factors, sums, values, scales, tokens, width, place, eps, LARGEST, LEAST, block, num_warps=WARPS)
    return sums, values, scales
