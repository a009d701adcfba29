"""A transformer with fused layers and real rotations gives what diffusers' own gives, and undo leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zbench.zimage.fast.attention import FusedAttnProcessor, fuse_attention
from zbench.zimage.fast.feed_forward import fuse_feed_forward

PROMPTS = ["a large red circle on a white background", "two small blue squares above one green star, at night " * 3]
KNOBS = {"rope": (False, True, False), "qkv": (True, False, False), "ffn": (False, False, True)}
"""What of attention's qkv, its rope and the feed-forward each knob fuses."""
KNOBS["all"] = (True, True, True)
LOSSLESS = 1e-5


def fuse(transformer: Any, knob: str) -> Callable[[], None]:
    qkv, rope, ffn = KNOBS[knob]
    undoes = [fuse_attention(transformer, qkv=qkv, rope=rope)]
    if ffn:
        undoes.append(fuse_feed_forward(transformer))
    return lambda: [undo() for undo in reversed(undoes)] and None


@pytest.fixture
def transformer(tiny: Any) -> Any:
    return copy.deepcopy(tiny.transformer)


def forward(transformer: Any, lengths: tuple[int, ...] = (40, 40), side: int = 16) -> Tensor:
    """Of a batch of texts of these lengths; unlike ones need a mask."""
    draw = torch.Generator().manual_seed(0)
    dtype = transformer.dtype
    channels, width = transformer.config.in_channels, transformer.config.cap_feat_dim
    x = [torch.randn(channels, 1, side, side + 4, generator=draw).to(dtype) for _ in lengths]
    texts = [torch.randn(length, width, generator=draw).to(dtype) for length in lengths]
    with torch.no_grad():
        made = transformer(x, torch.full((len(lengths),), 0.4, dtype=dtype), texts, return_dict=False)[0]
    return torch.stack(list(made)).float()


def processors_of(transformer: Any) -> list[Any]:
    return [module.processor for module in transformer.modules() if hasattr(module, "processor")]


def error(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("lengths", [(7,), (40, 40), (5, 70)], ids=["one", "equal", "masked"])
def test_a_forward_is_eagers_to_rounding(transformer: Any, knob: str, lengths: tuple[int, ...]) -> None:
    """Also where sequences are padded to the longest of a batch."""
    plain = forward(transformer, lengths)
    fuse(transformer, knob)
    assert error(forward(transformer, lengths), plain) < LOSSLESS


@pytest.mark.parametrize("knob", KNOBS)
def test_undo_leaves_every_name_weight_and_processor_as_it_was(transformer: Any, knob: str) -> None:
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    processors, embedder, plain = processors_of(transformer), transformer.rope_embedder, forward(transformer)
    modules = [name for name, _ in transformer.named_modules()]
    undo = fuse(transformer, knob)
    assert knob == "rope" or transformer.state_dict().keys() != before.keys()
    undo()
    after = transformer.state_dict()
    assert list(after) == list(before) and [name for name, _ in transformer.named_modules()] == modules
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert processors_of(transformer) == processors and transformer.rope_embedder is embedder
    assert len({tensor.untyped_storage().data_ptr() for tensor in after.values()}) == len(after), "none is a view"
    assert torch.equal(forward(transformer), plain)


@pytest.mark.parametrize("knob", KNOBS)
def test_no_weight_is_held_twice(transformer: Any, knob: str) -> None:
    def held(module: Any) -> int:
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in module.state_dict().values()}
        return sum(storages.values())

    before = held(transformer)
    split = [transformer.layers[0].attention.to_q, transformer.layers[0].feed_forward.w3]
    fuse(transformer, knob)
    assert held(transformer) == before
    qkv, _, ffn = KNOBS[knob]
    assert [layer.weight is None for layer in split] == [qkv, ffn], "nobody who keeps a layer keeps its weight"


@pytest.mark.parametrize("knob", KNOBS)
def test_in_bf16_the_error_is_bf16s_own(transformer: Any, knob: str) -> None:
    """Against float32 with the same weights, at most 1.25 times that of diffusers' own layers."""
    lower = copy.deepcopy(transformer).to(torch.bfloat16)
    exact = forward(copy.deepcopy(lower).float())
    plain = error(forward(lower), exact)
    fuse(lower, knob)
    assert 0 < error(forward(lower), exact) < 1.25 * plain


@pytest.mark.parametrize("knob", KNOBS)
def test_the_image_is_eagers(tiny: Any, transformer: Any, knob: str) -> None:
    """All steps and the decode, with prompts of unequal length and guidance."""

    def image() -> Tensor:
        pipe = copy.copy(tiny)
        pipe.transformer = transformer
        made = pipe(
            prompt=list(PROMPTS),  # which diffusers changes
            negative_prompt=["blurred", ""],
            height=64,
            width=96,
            num_inference_steps=3,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(3),
            output_type="pt",
        ).images
        return torch.as_tensor(made)

    plain = image()
    undo = fuse(transformer, knob)
    assert error(image(), plain) < LOSSLESS
    undo()
    assert torch.equal(image(), plain)


def test_rotations_are_made_real_once_a_forward(transformer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing complex is left in it, and the embedder is asked as often as before: for the image and for the text."""
    fuse(transformer, "rope")
    asked: list[Tensor] = []
    embedder = transformer.rope_embedder
    monkeypatch.setattr(transformer, "rope_embedder", lambda ids: asked.append(embedder(ids)) or asked[-1])
    monkeypatch.setattr(torch, "view_as_complex", None)
    forward(transformer)
    assert len(asked) == 2 and not any(rotation.is_complex() for rotation in asked)
    assert asked[0].shape[1] == 2 * transformer.config.dim // transformer.config.n_heads


def test_the_attention_backend_goes_on_to_be_the_layers(transformer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One set before is kept, one set later is taken up."""
    from zbench.zimage.fast import attention

    asked = []

    def spied(*args: Any, **options: Any) -> Tensor:
        asked.append(options["backend"])
        return dispatch(*args, **options)

    dispatch = attention.dispatch_attention_fn
    monkeypatch.setattr(attention, "dispatch_attention_fn", spied)
    transformer.set_attention_backend("_native_math")
    fuse(transformer, "all")
    forward(transformer)
    assert {backend.value for backend in asked} == {"_native_math"}
    asked.clear()
    transformer.set_attention_backend("native")
    forward(transformer)
    assert {backend.value for backend in asked} == {"native"}
    assert all(isinstance(processor, FusedAttnProcessor) for processor in processors_of(transformer))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_blocks_compile_whole(transformer: Any, backend: str) -> None:
    from torch._dynamo.utils import counters

    plain = forward(transformer)
    torch.compiler.reset()  # what other tests compiled is not counted
    counters.clear()
    try:
        transformer.compile_repeated_blocks(fullgraph=True, backend=backend)
        forward(transformer)
        graphs = counters["stats"]["unique_graphs"]
        torch.compiler.reset()
        counters.clear()
        fuse(transformer, "all")
        assert error(forward(transformer), plain) < LOSSLESS
        assert counters["stats"]["unique_graphs"] == graphs, "equal blocks share a graph, as diffusers' own do"
    finally:
        torch.compiler.reset()
        counters.clear()
