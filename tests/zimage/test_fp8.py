"""Which layers are quantised, and what is refused; that FP8 itself computes is shown where torchao and a device do."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from torch import nn

from zbench.methods import quantization as methods
from zbench.zimage.fast import quantization
from zbench.zimage.fast.feed_forward import fuse_feed_forward
from zbench.zimage.fast.quantization import count_quantised, quantisable, quantize

SMALL = {
    "dim": 96, "n_layers": 4, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32,
    "axes_dims": [16, 16, 16], "axes_lens": [64, 32, 32],
}  # fmt: skip


def small(dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Any:
    torch.manual_seed(0)
    return ZImageTransformer2DModel(**{**SMALL, **changes}).to(dtype).eval()


def names(transformer: Any, scope: str = "both", keep_ends: int = 1) -> list[str]:
    return [name for name, _ in quantisable(transformer, scope, keep_ends)]


def test_the_ends_stay_as_they_are() -> None:
    places = {name.split(".")[1] for name in names(small())}
    assert places == {"1", "2"} and {name.split(".")[1] for name in names(small(), keep_ends=0)} == set("0123")
    assert names(small(), keep_ends=2) == []


def test_a_scope_is_attention_projections_or_feed_forward() -> None:
    attention = names(small(n_layers=3), "attention")
    assert attention == [f"layers.1.attention.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0")]
    ffn = names(small(n_layers=3), "ffn")
    assert ffn == [f"layers.1.feed_forward.{layer}" for layer in ("w1", "w2", "w3")]
    assert set(names(small(), "both")) == {*names(small(), "attention"), *names(small(), "ffn")}
    assert not any("adaLN" in name or "norm" in name for name in names(small()))


def test_what_the_ends_and_scope_leave_is_what_the_plan_counts() -> None:
    from zbench.config import ComputeConfig
    from zbench.trial import preset_geometry

    geometry = preset_geometry("zimage_tiny").transformer
    tiny = small(
        dim=geometry.dim, n_layers=geometry.n_layers, n_heads=geometry.n_heads, n_kv_heads=geometry.n_heads,
        axes_dims=[8, 20, 20],
    )  # fmt: skip
    for scope in ("attention", "ffn", "both"):
        compute = ComputeConfig(quantization="fp8", scope=scope)
        held = sum(layer.weight.numel() for _, layer in quantisable(tiny, scope, methods.KEPT_ENDS))
        blocks = methods.quantised_blocks(compute, geometry.n_layers)
        assert held == blocks * methods.block_parameters(compute, geometry)


def test_dimensions_that_are_no_multiples_of_16_stay() -> None:
    transformer = small()
    transformer.layers[1].attention.to_q = nn.Linear(96, 72, bias=False)
    assert "layers.1.attention.to_q" not in names(transformer) and "layers.1.attention.to_k" in names(transformer)


def test_joined_layers_are_quantised_by_whatever_name_they_have() -> None:
    transformer = small(n_layers=3)
    attention = transformer.layers[1].attention
    attention.to_qkv = nn.Linear(96, 288, bias=False)
    attention.to_q = attention.to_k = attention.to_v = None
    assert names(transformer, "attention") == ["layers.1.attention.to_out.0", "layers.1.attention.to_qkv"]


@pytest.mark.parametrize(
    ("transformer", "arguments", "says"),
    [
        (lambda: small(), ("int4", "both", 1), "must be one of fp8"),
        (lambda: small(), ("fp8", "all", 1), "scope=all: must be one of attention, ffn, both"),
        (lambda: small(), ("fp8", "both", 2), "of 4 blocks 2 at each end stay"),
        (lambda: small(torch.float32), ("fp8", "both", 1), r"Parameter of torch\.float32; plain bfloat16"),
        (lambda: small(), ("fp8", "both", 1), "on GPUs alone, and the weights are on cpu"),
    ],
)
def test_what_cannot_be_quantised_is_refused(transformer: Any, arguments: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        quantize(transformer(), *arguments)


def test_a_card_without_fp8_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA A100")
    with pytest.raises(ValueError, match="NVIDIA A100 has no FP8"):
        quantization._check_device(torch.device("cuda"))


def test_torchao_is_told_row_wise_and_these_layers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    def quantize_(model: Any, config: Any, filter_fn: Any) -> None:
        said.append(config)
        said.extend(name for name, module in model.named_modules() if filter_fn(module, name))

    torchao = ModuleType("torchao.quantization")
    vars(torchao).update(
        quantize_=quantize_,
        PerRow=lambda: "row",
        Float8DynamicActivationFloat8WeightConfig=lambda **given: SimpleNamespace(**given),
    )
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.quantization", torchao)
    monkeypatch.setattr(quantization, "_check_device", lambda _device: None)
    transformer = small()
    quantize(transformer, "fp8", "ffn", 1)
    config, *quantised = said
    assert config.granularity == "row" and config.set_inductor_config is False
    assert quantised == names(transformer, "ffn") and len(quantised) == 6


def test_rows_in_fp8_are_near_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torchao itself; torch 2.13 has a scaled matmul on a CPU too, and a check of the device is in the way."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inference = pytest.importorskip("torchao.float8.inference", reason="needs torchao")
    quant_api = pytest.importorskip("torchao.quantization.quant_api")
    for module in (inference, quant_api):
        monkeypatch.setattr(module, "_check_hardware_support", lambda _granularities: None)
    monkeypatch.setattr(quantization, "_check_device", lambda _device: None)
    transformer = small().to(device)
    block = transformer.layers[1].feed_forward
    x = torch.randn(32, 96, dtype=torch.bfloat16, device=device)
    before = block(x)
    quantize(transformer, "fp8", "both", 1)
    assert count_quantised(transformer) == len(names(small())) == 14
    error = (block(x) - before).float().norm() / before.float().norm()
    assert 1e-3 < error < 0.1, "e4m3 has three bits of mantissa: each factor is within 6 %, and errors average out"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_fused_feed_forward_in_fp8_gives_what_torchao_gives() -> None:
    """One kernel rounds the middle in place of the compiler's; both round the same numbers in the same way."""
    pytest.importorskip("torchao")
    from zbench.zimage.fast.gated_rows import GatedRowsFeedForward, gated_rows

    transformer = small().to("cuda")
    fuse_feed_forward(transformer)
    x = torch.randn(2, 32, 96, dtype=torch.bfloat16, device="cuda")
    before = transformer.layers[1].feed_forward(x)
    quantize(transformer, "fp8", "both", 1)
    made = transformer.layers[1].feed_forward
    assert isinstance(made, GatedRowsFeedForward)
    gate, factor = made.w13(x).chunk(2, dim=-1)
    by_torchao = made.w2(torch.nn.functional.silu(gate) * factor)
    assert made(x).shape == by_torchao.shape
    assert (made(x) - by_torchao).float().norm() < 0.02 * by_torchao.float().norm()
    assert (made(x) - before).float().norm() < 0.1 * before.float().norm()
    rows, scales = gated_rows(torch.zeros(3, 64, dtype=torch.bfloat16, device="cuda"))
    assert not rows.float().any() and bool((scales > 0).all())
