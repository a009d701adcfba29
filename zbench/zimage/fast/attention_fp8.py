"""Attention in FP8 by cuDNN: queries, keys and values in float8_e4m3fn, its softmax in it too, sums in float32.

Queries and keys were normalised, so what they can reach is known from the norm's weights; values are measured in each
call. So nothing saturates, and one scale a tensor is enough for a format that has an exponent. A mean of values is no
larger than the largest of them, so what comes out has the values' scale. A compiler rounds in the kernels that norm and
rotate; the attention itself is one operator that it does not look into. It needs nvidia-cudnn-frontend.

Source: https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op

from zbench.zimage.fast.scaled import LARGEST, LEAST, ScaledRows

SHARES = 256.0
"""What a softmax's share of 1 is before it is rounded."""


def attended_in_fp8(query: Tensor, key: Tensor, value: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
    """Each batch x tokens x heads x width; the same comes back. `bounds`: what queries and keys never pass."""
    made, unit = _as_it_comes(query, key, value, bounds)
    return (made.float() * unit).to(value.dtype)


def attended_as_rows(query: Tensor, key: Tensor, value: Tensor, bounds: tuple[Tensor, Tensor]) -> ScaledRows:
    """The same for a layer that reads FP8: batch x tokens x heads times width, not rounded a second time."""
    made, unit = _as_it_comes(query, key, value, bounds)
    values = made.flatten(2, 3)
    return ScaledRows(values, unit.view(1, 1).expand(values.shape[0] * values.shape[1], 1).contiguous())


def _as_it_comes(query: Tensor, key: Tensor, value: Tensor, bounds: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """In FP8, and its unit, one number of as many dimensions."""
    units = [(bound.float().clamp(min=LEAST) / LARGEST).view(1, 1, 1, 1) for bound in (*bounds, value.abs().amax())]
    rounded = [(x / unit).to(torch.float8_e4m3fn) for x, unit in zip((query, key, value), units, strict=True)]
    return attended_by_cudnn_in_fp8(*rounded, *units), units[2]


def bound_of(norm: Any, x: Tensor) -> Tensor:
    """What no element of a normalised and rotated `x` (... x width) passes: a rotation keeps a head's length."""
    largest: Tensor = (
        x.abs().amax() * math.sqrt(2) if norm is None else norm.weight.abs().amax() * math.sqrt(x.shape[-1])
    )
    return largest


@custom_op("zbench::attended_by_cudnn_in_fp8", mutates_args=(), device_types="cuda")
def attended_by_cudnn_in_fp8(
    query: Tensor, key: Tensor, value: Tensor, query_unit: Tensor, key_unit: Tensor, value_unit: Tensor
) -> Tensor:
    """Each batch x tokens x heads x width in FP8, with any strides; the result's unit is the values'."""
    import cudnn

    made = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    plan = _plan(tuple(_layout(x) for x in (query, key, value, made)), query.device.index)
    once, back = plan.of_shares
    tensors = (query, key, value, made, query_unit, key_unit, value_unit, back, once, value_unit.reciprocal())
    pack = dict(zip(plan.places, (*tensors, *plan.unused), strict=True))
    cudnn.set_stream(handle=plan.handle, stream=torch.cuda.current_stream(query.device).cuda_stream)
    plan.graph.execute(pack, plan.workspace, handle=plan.handle)
    return made


@attended_by_cudnn_in_fp8.register_fake
def _made_like(query: Tensor, *_others: Tensor) -> Tensor:
    return torch.empty(query.shape, dtype=query.dtype, device=query.device)


class _Plan(NamedTuple):
    """cuDNN's, for tensors of some shapes and strides on one device, with what stays the same from call to call."""

    graph: Any
    handle: Any
    places: tuple[Any, ...]
    of_shares: tuple[Tensor, Tensor]
    unused: tuple[Tensor, Tensor]
    workspace: Tensor


_Layout = tuple[tuple[int, ...], tuple[int, ...]]


def _layout(x: Tensor) -> _Layout:
    """Shape and strides as cuDNN orders them: batch, heads, tokens, width."""
    turned = x.transpose(1, 2)
    return tuple(turned.shape), turned.stride()


@cache
def _handle(device: int) -> Any:
    import cudnn

    with torch.cuda.device(device):
        return cudnn.create_handle()


@cache
def _plan(layouts: tuple[_Layout, ...], device: int) -> _Plan:
    """Raises cuDNN's own error for what it has no kernel for."""
    import cudnn

    eight, whole = cudnn.data_type.FP8_E4M3, cudnn.data_type.FLOAT
    handle = _handle(device)
    graph = cudnn.pygraph(io_data_type=eight, intermediate_data_type=whole, compute_data_type=whole, handle=handle)
    query, key, value = (
        graph.tensor(dim=list(shape), stride=list(strides), data_type=eight) for shape, strides in layouts[:3]
    )
    scales = [graph.tensor(dim=[1] * 4, stride=[1] * 4, data_type=whole) for _ in range(6)]
    names = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")
    made, _, *largest = graph.sdpa_fp8(
        q=query,
        k=key,
        v=value,
        **dict(zip(names, scales, strict=True)),
        is_inference=True,
        attn_scale=layouts[0][0][-1] ** -0.5,
    )
    shape, strides = layouts[3]
    made.set_output(True).set_dim(list(shape)).set_stride(list(strides)).set_data_type(eight)
    for each in largest:
        each.set_output(True).set_dim([1] * 4).set_stride([1] * 4).set_data_type(whole)
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    graph.check_support()
    graph.build_plans()

    def held(value: float) -> Tensor:
        return torch.full((1,), value, device=torch.device("cuda", device))

    workspace = torch.empty(max(1, graph.get_workspace_size()), dtype=torch.uint8, device=torch.device("cuda", device))
    places = (query, key, value, made, *scales, *largest)
    return _Plan(graph, handle, places, (held(SHARES), held(1 / SHARES)), (held(0.0), held(0.0)), workspace)
