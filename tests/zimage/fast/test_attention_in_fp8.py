"""Attention in FP8: nothing saturates, units cancel, and without the package there is one clear error.

cuDNN's kernel stands on GPUs alone; here plain arithmetic on the same rounded tensors stands in for it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zbench.errors import ConfigError
from zbench.methods.attention import check_backend
from zbench.zimage.fast import attention_fp8
from zbench.zimage.fast.attention_fp8 import LARGEST, attended_in_fp8, bound_of

SEEN: list[Tensor] = []


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    made = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
    return made.transpose(1, 2)


def stand_in(query: Tensor, key: Tensor, value: Tensor, *units: Tensor) -> Tensor:
    SEEN[:] = [query, key, value]
    whole = (x.float() * unit for x, unit in zip((query, key, value), units, strict=True))
    return (attended(*whole) / units[2]).to(torch.float8_e4m3fn)


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_fp8, "attended_by_cudnn_in_fp8", stand_in)


def norm_of(largest: float, width: int = 48) -> nn.RMSNorm:
    norm = nn.RMSNorm(width).bfloat16()
    torch.nn.init.uniform_(norm.weight, -largest, largest)
    norm.weight.data[0] = largest
    return norm.requires_grad_(False)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e4], ids=["tiny", "usual", "huge"])
@pytest.mark.parametrize("largest", [0.01, 1.0, 4.0])
def test_no_size_of_values_or_of_a_norm_saturates(scale: float, largest: float) -> None:
    torch.manual_seed(0)
    norm = norm_of(largest)
    query, key, value = (torch.randn(1, 70, 2, 48).bfloat16() for _ in range(3))
    query[0, 0, 0] = torch.eye(48)[0].bfloat16()  # a head's whole length in the channel that the norm makes largest
    query, key, value = norm(query), norm(key) / largest, value * scale
    exact = attended(query.float(), key.float(), value.float())
    made = attended_in_fp8(query, key, value, (bound_of(norm, query), bound_of(None, key)))
    assert made.dtype == torch.bfloat16 and bool(torch.isfinite(made).all())
    assert all(float(x.float().abs().max()) <= LARGEST for x in SEEN)
    assert float((made.float() - exact).norm() / exact.norm()) < 0.2


def test_a_bound_holds_for_whatever_a_rotation_does_with_a_head() -> None:
    norm = norm_of(3.0)
    one_channel = torch.zeros(1, 1, 1, 48).bfloat16()
    one_channel[..., 0] = 5
    assert float(bound_of(norm, one_channel)) >= float(norm(one_channel).float().norm())
    assert float(bound_of(None, one_channel)) >= 5


def test_values_of_zero_are_zero() -> None:
    query, key = (torch.randn(1, 8, 1, 16).bfloat16() for _ in range(2))
    made = attended_in_fp8(query, key, torch.zeros_like(key), (bound_of(None, query), bound_of(None, key)))
    assert not made.any()


def test_without_the_package_the_way_to_get_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr("zbench.methods.attention.find_spec", lambda name: None if name == "cudnn" else there(name))
    with pytest.raises(ConfigError, match=r"compute.attention_backend=cudnn_fp8: .*pip install 'zbench\[cudnn\]'"):
        check_backend("cudnn_fp8")


def test_a_layer_in_fp8_asks_for_nothing_else(tiny: Any) -> None:
    """Whatever backend diffusers was told, and with each of the knobs that bring the layer."""
    import copy

    from zbench.zimage.fast.attention import fuse_attention

    for knobs in ({"qkv": True, "rope": False}, {"qkv": False, "rope": True}):
        transformer = copy.deepcopy(tiny.transformer)
        fuse_attention(transformer, **knobs, in_fp8=True)
        SEEN.clear()
        latents = torch.zeros(transformer.config.in_channels, 1, 8, 8)
        text = torch.ones(7, transformer.config.cap_feat_dim)
        with torch.no_grad():
            transformer([latents], torch.tensor([0.5]), [text], return_dict=False)
        assert [x.dtype for x in SEEN] == [torch.float8_e4m3fn] * 3
