"""Fused norms give what a block gives whose layers round to FP8 by themselves; which blocks they are for.

Triton and torchao are on GPUs alone; here the same in plain torch stands in for the one, and a linear layer that rounds
as torchao does for the other.
"""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace
from typing import Any

import plain_triton
import pytest
import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor, nn
from torch.library import custom_op

from zbench.zimage.fast import attention_fp8
from zbench.zimage.fast.attention import fuse_attention
from zbench.zimage.fast.feed_forward import fuse_feed_forward
from zbench.zimage.fast.fused_norms import FusedNorms, Kernels, fuse_norms, in_torch, in_triton
from zbench.zimage.fast.scaled import LARGEST, LEAST, RowsLinear, ScaledRows, product, rounded

WIDTH, BATCH, TOKENS = 96, 2, 5
ROUNDING = 2**-8
"""Of bfloat16, half a unit in the last place."""
PLAIN = in_torch()
BACKEND = "aot_eager"


class InFP8:
    """What torchao makes of a weight: FP8, a scale a row."""

    def __init__(self, weight: Tensor) -> None:
        self.qdata, self.scale = rounded(weight)
        self.mm_config = SimpleNamespace(use_fast_accum=False)


InFP8.__module__ = "torchao.of_this_test"


class RoundingLinear(nn.Linear):
    """Rounds what it reads, as torchao's layers do."""

    def forward(self, x: Tensor) -> Tensor:
        return product(rounded(x.contiguous()), self.weight)


def in_fp8(layer: nn.Linear) -> nn.Linear:
    made = RoundingLinear(layer.in_features, layer.out_features, bias=False)
    del made.weight
    made.weight = InFP8(layer.weight.data)  # type: ignore[assignment]
    return made


def plain_layers(n_layers: int = 4) -> Any:
    """A transformer as diffusers makes it, in bfloat16, whose norms' weights are no ones."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "dim": WIDTH, "n_layers": n_layers, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32,
        "axes_dims": [16, 16, 16], "axes_lens": [256, 32, 32],
    }  # fmt: skip
    transformer = ZImageTransformer2DModel(**sizes).bfloat16().eval().requires_grad_(False)
    for name, weight in transformer.named_parameters():
        if "norm" in name:
            nn.init.uniform_(weight, 0.5, 1.5)
    return transformer


def small(n_layers: int = 4, **changes: Any) -> Any:
    """Joined and quantised, but for its first and last block."""
    transformer = plain_layers(n_layers)
    fuse_attention(transformer, qkv=True, rope=True, **changes)
    fuse_feed_forward(transformer)
    for block in transformer.layers[1:-1]:
        block.attention.to_qkv = in_fp8(block.attention.to_qkv)
        block.attention.to_out[0] = in_fp8(block.attention.to_out[0])
        block.feed_forward.w13 = in_fp8(block.feed_forward.w13)
        block.feed_forward.w2 = in_fp8(block.feed_forward.w2)
    return transformer


def forward(transformer: Any, lengths: tuple[int, ...] = (40,)) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    dtype = transformer.dtype
    x = [torch.randn(16, 1, 8, 12, generator=draw).to(dtype) for _ in lengths]
    texts = [torch.randn(length, 32, generator=draw).to(dtype) for length in lengths]
    times = torch.linspace(0.25, 0.75, len(lengths)).to(dtype)
    with torch.no_grad():
        return torch.stack(list(transformer(x, times, texts, return_dict=False)[0])).float()


def error(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(BATCH, TOKENS, WIDTH, generator=draw).bfloat16() for _ in range(2))
    return x, y, torch.randn(BATCH, 4, WIDTH, generator=draw)


def test_the_largest_of_each_row_is_the_formats_largest() -> None:
    values, scales = rounded(torch.randn(3, 7, 64) * torch.logspace(-20, 20, 21).view(3, 7, 1))
    assert values.shape == (3, 7, 64) and scales.shape == (21, 1) and scales.dtype == torch.float32
    assert torch.equal(values.float().abs().amax(-1)[1:], torch.full((2, 7), LARGEST)), "saturated or fallen short"
    zeros, of_zeros = rounded(torch.zeros(2, 16))
    assert not zeros.float().any() and bool((of_zeros == torch.tensor(LEAST) / LARGEST).all())


@pytest.mark.parametrize("shape", [(3, 32), (2, 3, 32)])
def test_a_product_of_rows_is_that_of_what_they_stand_for(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape), InFP8(torch.randn(48, 32))
    rows = rounded(x)
    whole = rows.values.float() * rows.scales.view(*shape[:-1], 1)
    exact = whole @ (weight.qdata.float() * weight.scale).T
    made = product(rows, weight)
    assert made.shape == exact.shape and made.dtype == torch.bfloat16 and error(made, exact) < ROUNDING


def test_a_norm_takes_the_factor_of_its_place_and_its_image() -> None:
    """As diffusers has it: the norm's weight, and 1 plus the scale or the hyperbolic tangent of the gate."""
    norms = [SimpleNamespace(weight=torch.full((WIDTH,), weight), eps=1e-5) for weight in (1.0, 2.0, 3.0, 4.0)]
    modulation = torch.linspace(-1, 1, BATCH)[:, None].expand(BATCH, 4 * WIDTH)
    factors = FusedNorms(norms, PLAIN).factors(modulation, BATCH)
    at = torch.linspace(-1, 1, BATCH)
    expected = torch.stack([1 + at, 2 * at.tanh(), 3 * (1 + at), 4 * at.tanh()], dim=1)
    assert torch.allclose(factors, expected[:, :, None].expand(-1, -1, WIDTH)) and factors.is_contiguous()
    x, y, drawn_factors = drawn()
    normed = x.float() / x.float().pow(2).mean(-1, keepdim=True).add(1e-5).sqrt()
    for place in range(4):
        values, scales = PLAIN.normed(x, drawn_factors, place, 1e-5)
        assert error(values.float() * scales.view(BATCH, TOKENS, 1), normed * drawn_factors[:, place, None]) < 0.04
    of_y = y.float() / y.float().pow(2).mean(-1, keepdim=True).add(1e-5).sqrt()
    assert error(PLAIN.added(x, y, drawn_factors, 3, 1e-5), x + of_y * drawn_factors[:, 3, None]) < ROUNDING


def test_two_norms_in_one_kernel_are_one_after_the_other() -> None:
    x, y, factors = drawn()
    sums, values, scales = PLAIN.added_and_normed(x, y, factors, 1, 1e-5)
    assert torch.equal(sums, PLAIN.added(x, y, factors, 1, 1e-5)) and sums.dtype == torch.bfloat16
    after = PLAIN.normed(sums, factors, 2, 1e-5)
    assert torch.equal(values.float(), after[0].float()) and torch.equal(scales, after[1])


@pytest.mark.parametrize("lengths", [(40,), (40, 40), (5, 70)], ids=["one", "equal", "masked"])
def test_a_forward_is_that_of_layers_that_round_by_themselves(lengths: tuple[int, ...]) -> None:
    """But for values between two of FP8, which bfloat16 between the steps moved; so it is no farther from float32."""
    transformer = small()
    plain, exact = forward(transformer, lengths), forward(plain_layers().float(), lengths)
    assert fuse_norms(transformer, PLAIN) == 2
    fused = forward(transformer, lengths)
    assert 0 < error(fused, plain) < 0.02 and 0.01 < error(fused, exact) < 1.05 * error(plain, exact)


def test_the_ends_the_refiners_and_blocks_without_fp8_stay_as_they_are() -> None:
    transformer = small(n_layers=5)
    transformer.layers[2].feed_forward.w13 = nn.Linear(WIDTH, 512, bias=False).bfloat16()
    transformer.layers[3].modulation = False
    assert fuse_norms(transformer, PLAIN) == 1
    fused = [hasattr(block, "fused_norms") for block in transformer.layers]
    assert fused == [False, True, False, False, False] == ["forward" in vars(block) for block in transformer.layers]
    refiners = [*transformer.noise_refiner, *transformer.context_refiner]
    assert not any("forward" in vars(block) for block in refiners)
    linear = [module for module in transformer.layers[1].modules() if isinstance(module, RowsLinear)]
    assert len(linear) == 3


def test_what_has_nothing_to_round_for_and_what_is_fused_already_is_refused() -> None:
    transformer = small()
    plain = copy.deepcopy(transformer)
    for block in plain.layers[1:-1]:
        block.attention.to_out[0] = nn.Linear(WIDTH, WIDTH, bias=False).bfloat16()
    with pytest.raises(ValueError, match=r"nothing to round for; use compute\.norms=split"):
        fuse_norms(plain, PLAIN)
    fuse_norms(transformer, PLAIN)
    with pytest.raises(ValueError, match="its norms are fused already"):
        fuse_norms(transformer, PLAIN)


def test_a_blocks_words_stay_as_they_are_for_those_who_call_it() -> None:
    """cache-dit reads them, and calls blocks whole."""
    transformer = small()
    block = transformer.layers[1]
    before = inspect.signature(block.forward).parameters.keys()
    names, kind = block.state_dict().keys(), type(block)
    fuse_norms(transformer, PLAIN)
    assert inspect.signature(block.forward).parameters.keys() == before and type(block) is kind
    assert block.state_dict().keys() == names, "factors are made of what the norms hold"


def test_a_modulation_for_each_token_is_diffusers_own() -> None:
    transformer = small()
    block, noisy = transformer.layers[1], torch.randn(1, WIDTH).bfloat16()
    x, rotation = torch.randn(1, 8, WIDTH).bfloat16(), transformer.rope_embedder(torch.zeros(8, 3, dtype=torch.int64))
    rest = (None, rotation[None], None, torch.ones(1, 8), noisy, noisy)
    with torch.no_grad():
        plain = block(x, *rest)
        fuse_norms(transformer, PLAIN)
        assert torch.equal(block(x, *rest), plain)


def test_attention_in_fp8_hands_on_what_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the values' own unit, so nothing is rounded a second time."""
    seen: list[ScaledRows] = []

    def attended(query: Tensor, key: Tensor, value: Tensor, *units: Tensor) -> Tensor:
        whole = (x.float().transpose(1, 2) * unit for x, unit in zip((query, key, value), units, strict=True))
        made = torch.nn.functional.scaled_dot_product_attention(*whole).transpose(1, 2)
        return (made / units[2]).contiguous().to(torch.float8_e4m3fn)

    monkeypatch.setattr(attention_fp8, "attended_by_cudnn_in_fp8", attended)
    transformer = small(in_fp8=True)
    plain = forward(transformer)
    fuse_norms(transformer, PLAIN)
    last = transformer.layers[1].attention.to_out[0]
    last.register_forward_pre_hook(lambda _layer, given: seen.append(given[0]))
    assert error(forward(transformer), plain) < 0.03
    (rows,) = seen
    assert (
        isinstance(rows, ScaledRows) and rows.values.dtype == torch.float8_e4m3fn and rows.scales.unique().numel() == 1
    )
    assert rows.scales.shape == (rows.values.shape[0] * rows.values.shape[1], 1) and rows.scales.is_contiguous()


@custom_op("zbench_test::rounded", mutates_args=())
def opaque_rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = PLAIN.rounded(x)
    return values, scales


@custom_op("zbench_test::normed", mutates_args=())
def opaque_normed(x: Tensor, factors: Tensor, place: int, eps: float) -> tuple[Tensor, Tensor]:
    values, scales = PLAIN.normed(x, factors, place, eps)
    return values, scales


@custom_op("zbench_test::added", mutates_args=())
def opaque_added(x: Tensor, y: Tensor, factors: Tensor, place: int, eps: float) -> Tensor:
    return PLAIN.added(x, y, factors, place, eps)


@custom_op("zbench_test::added_and_normed", mutates_args=())
def opaque_added_and_normed(
    x: Tensor, y: Tensor, factors: Tensor, place: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return PLAIN.added_and_normed(x, y, factors, place, eps)


def rows_like(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=torch.float8_e4m3fn), x.new_empty(x.numel() // WIDTH, 1, dtype=torch.float32)


opaque_rounded.register_fake(rows_like)
opaque_normed.register_fake(lambda x, *_: rows_like(x))
opaque_added.register_fake(lambda x, *_: torch.empty_like(x))
opaque_added_and_normed.register_fake(lambda x, *_: (torch.empty_like(x), *rows_like(x)))
OPAQUE = Kernels(opaque_rounded, opaque_normed, opaque_added, opaque_added_and_normed)


def test_blocks_compile_whole_and_share_a_graph() -> None:
    """With kernels that a compiler does not look into, as it does not into Triton's."""
    from torch._dynamo.utils import counters

    transformer = small()
    fuse_norms(transformer, OPAQUE)
    x, time = torch.randn(1, 8, WIDTH).bfloat16(), torch.randn(1, WIDTH).bfloat16()
    rest = (None, transformer.rope_embedder(torch.zeros(8, 3, dtype=torch.int64))[None], time)
    blocks = transformer.layers[1:-1]
    with torch.no_grad():
        plain = [block(x, *rest) for block in blocks]
        torch.compiler.reset()  # what was compiled before is not counted
        counters.clear()
        try:
            for block in blocks:
                block.compile(fullgraph=True, backend=BACKEND)
            assert all(torch.equal(block(x, *rest), made) for block, made in zip(blocks, plain, strict=True))
            assert counters["stats"]["unique_graphs"] == 1
        finally:
            torch.compiler.reset()
            counters.clear()


def hold_to_plain_torch(kernels: Kernels, width: int, device: str) -> None:
    """Sums may be in another order, so that a value which lies between two of FP8 becomes the other one."""
    draw = torch.Generator(device).manual_seed(0)
    x, y = (torch.randn(2, 33, width, generator=draw, device=device).bfloat16() for _ in range(2))
    x[0, 0] = 0
    factors = torch.randn(2, 4, width, generator=draw, device=device)
    calls = {
        "rounded": (x,),
        "normed": (x, factors, 0, 1e-5),
        "added": (x, y, factors, 3, 1e-5),
        "added_and_normed": (x, y, factors, 1, 1e-5),
    }
    for name, given in calls.items():
        made, plain = (getattr(each, name)(*given) for each in (kernels, PLAIN))
        made, plain = ((each,) if isinstance(each, Tensor) else each for each in (made, plain))
        for one, other in zip(made, plain, strict=True):
            assert one.shape == other.shape and one.dtype == other.dtype and one.is_contiguous()
            apart = (one.float() - other.float()).abs()
            next_to, least = {
                torch.float8_e4m3fn: (2**-3, 2**-9),
                torch.bfloat16: (2**-7, 1e-6),
                torch.float32: (1e-5, 0.0),
            }[one.dtype]
            assert bool((apart <= next_to * other.float().abs() + least).all()), name
            assert one.dtype == torch.float32 or float((apart > 0).float().mean()) < 0.01, name


@pytest.mark.parametrize("width", [64, 96])
def test_kernels_read_and_write_their_own_rows(width: int) -> None:
    """Also where a block of threads is wider than a row, and of the second image's factors."""
    with plain_triton.imported("zbench.zimage.fast.normed_rows"):
        hold_to_plain_torch(in_triton(), width, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("width", [64, 96, 3840])
def test_kernels_give_what_plain_torch_gives(width: int) -> None:
    hold_to_plain_torch(in_triton(), width, "cuda")
