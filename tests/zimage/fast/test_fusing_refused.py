"""What cannot be fused is refused before anything is changed, and says the way out."""

from __future__ import annotations

import copy
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import loras
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from zbench.zimage.fast.attention import fuse_attention, why_not_fuse_attention
from zbench.zimage.fast.feed_forward import fuse_feed_forward, why_not_fuse_feed_forward
from zbench.zimage.fast.joined import Joined
from zbench.zimage.fast.limits import (
    ADAPTER_BESIDE,
    ALREADY,
    ASYNC_SENDS_EACH,
    FOREIGN_PROCESSOR,
    GATHER_SENDS_EACH,
    PACKED,
)


@pytest.fixture
def transformer(tiny: Any) -> Any:
    return copy.deepcopy(tiny.transformer)


def forward(transformer: Any) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(transformer.config.in_channels, 1, 16, 16, generator=draw)
    text = torch.randn(9, transformer.config.cap_feat_dim, generator=draw)
    with torch.no_grad():
        made: torch.Tensor = transformer([x], torch.tensor([0.5]), [text], return_dict=False)[0][0]
    return made


def with_lora(tiny: Any, transformer: Any, folder: Any) -> Any:
    pipe = copy.copy(tiny)
    pipe.transformer = transformer
    save_file(loras.diffusers(), folder / "style.safetensors")
    pipe.load_lora_weights(str(folder), weight_name="style.safetensors", adapter_name="style", local_files_only=True)
    return pipe


def test_a_lora_beside_the_layers_leaves_them_split_and_rotations_real(
    tiny: Any, transformer: Any, tmp_path: Any
) -> None:
    """It changes attention alone, so the feed-forward can be fused; added to the weights it hinders nothing."""
    pipe = with_lora(tiny, transformer, tmp_path)
    names = list(transformer.state_dict())
    with pytest.raises(ValueError) as refused:
        fuse_attention(transformer, qkv=True, rope=True)
    assert str(refused.value) == ADAPTER_BESIDE and list(transformer.state_dict()) == names
    plain = forward(transformer)
    undoes = [fuse_attention(transformer, qkv=False, rope=True), fuse_feed_forward(transformer)]
    torch.testing.assert_close(forward(transformer), plain, rtol=1e-5, atol=1e-5)
    while undoes:
        undoes.pop()()
    assert list(transformer.state_dict()) == names
    pipe.fuse_lora(adapter_names=["style"])
    pipe.unload_lora_weights()
    fuse_attention(transformer, qkv=True, rope=True)
    torch.testing.assert_close(forward(transformer), plain, rtol=1e-4, atol=1e-4)


def test_packed_weights_are_left_as_they_are(transformer: Any) -> None:
    class Packed(nn.Linear):
        """Stands for a layer of a quantiser's own."""

    transformer.layers[1].attention.to_k = Packed(192, 192, bias=False)
    transformer.layers[1].feed_forward.w3 = Packed(192, 512, bias=False)
    said = PACKED.format(kind="Packed")
    assert why_not_fuse_attention(transformer, qkv=True, rope=False) == said
    assert why_not_fuse_feed_forward(transformer) == said
    with pytest.raises(ValueError, match="Packed"):
        fuse_feed_forward(transformer)
    assert why_not_fuse_attention(transformer, qkv=False, rope=True) is None


def test_nothing_is_fused_twice(transformer: Any) -> None:
    fuse_attention(transformer, qkv=True, rope=True)
    fuse_feed_forward(transformer)
    assert why_not_fuse_feed_forward(transformer) == ALREADY
    assert why_not_fuse_attention(transformer, qkv=False, rope=True) == ALREADY
    with pytest.raises(ValueError):
        fuse_attention(transformer, qkv=True, rope=False)


def test_what_sends_projections_one_by_one_needs_them_apart(transformer: Any) -> None:
    """Gather rotates by real numbers anyhow; asynchronous Ulysses has an attention of its own."""
    from zbench.engines.reference.sharded.gather import GatherAttnProcessor

    attentions = [module for module in transformer.modules() if hasattr(module, "processor")]
    attentions[0].processor._parallel_config = SimpleNamespace(ulysses_async=True)
    assert why_not_fuse_attention(transformer, qkv=False, rope=True) == ASYNC_SENDS_EACH
    gathers = GatherAttnProcessor.__new__(GatherAttnProcessor)
    for attention in attentions:
        attention.set_processor(gathers)
    assert why_not_fuse_attention(transformer, qkv=True, rope=True) == GATHER_SENDS_EACH
    embedder = transformer.rope_embedder
    fuse_attention(transformer, qkv=False, rope=True)
    assert transformer.rope_embedder is embedder and attentions[0].processor is gathers, "it is real without us"


def test_another_attention_is_refused_by_its_name(transformer: Any) -> None:
    class Strange:
        """No processor of diffusers'."""

    transformer.layers[0].attention.processor = Strange()
    assert why_not_fuse_attention(transformer, qkv=True, rope=False) == FOREIGN_PROCESSOR.format(kind="Strange")


def test_a_weight_that_was_quantised_since_is_not_taken_apart() -> None:
    class Quantised(nn.Parameter):
        """Stands for a quantiser's own."""

    joined = Joined([nn.Linear(4, 4, bias=False), nn.Linear(4, 6, bias=False)])
    joined.layer.weight = Quantised(torch.zeros(10, 4))
    with pytest.raises(RuntimeError, match="Quantised; undo that first"):
        joined.part()


def test_reasons_need_no_torch() -> None:
    """A plan says them, and a plan imports none."""
    code = "import sys, zbench.zimage.fast.limits; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
