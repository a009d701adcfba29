"""Claims about `zbench.zimage.flops`: closed forms agree with torch's own counter and with real modules' weights.

The counter sees every matrix product, convolution and attention that really runs (on the meta device: that would run),
so it knows nothing of our formulas. They should agree exactly; 0.1 % leaves room for the encoder's rotary table, which
torch computes as a tiny matrix product.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zbench.zimage import flops
from zbench.zimage.components import build_module
from zbench.zimage.geometry import Geometry
from zbench.zimage.layout import Checkpoint, preset_folder

EXACT = 1e-3
PRESETS = ("zimage_tiny", "zimage_turbo")


def geometry(name: str) -> Geometry:
    return Geometry.from_folder(preset_folder(name))


def module(name: str, component: str) -> Any:
    """The real module of a preset, without memory behind its weights."""
    with torch.device("meta"):
        return build_module(Checkpoint(preset_folder(name)), component)


def weights(part: Any) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def counted(function: Any) -> flops.Flops:
    """FLOPs by torch's counter. It knows nothing of the CPU's fused attention, so attention runs as batched products
    (as it does on the meta device anyway), which nothing else here does."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        function()
    by_operation = {str(key): value for key, value in counter.get_flop_counts()["Global"].items()}
    attention = sum(value for key, value in by_operation.items() if "bmm" in key or "attention" in key)
    return flops.Flops(counter.get_total_flops() - attention, attention)


def assert_equal(ours: flops.Flops, theirs: flops.Flops) -> None:
    assert ours.gemm == pytest.approx(theirs.gemm, rel=EXACT)
    assert ours.attention == pytest.approx(theirs.attention, rel=EXACT)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_the_real_modules(name: str) -> None:
    ours = flops.parameters(geometry(name))
    vae = module(name, "vae")
    assert ours.transformer == weights(module(name, "transformer"))
    assert ours.text_encoder == weights(module(name, "text_encoder"))
    assert (ours.vae_decoder, ours.vae_encoder) == (weights(vae.decoder), weights(vae.encoder))


def test_turbo_has_six_billion_parameters_and_55_tflop_a_forward() -> None:
    """6.15 B and 55.6 TFLOP were measured with the real model on an H100, at 1024x1024 with 64 prompt tokens."""
    turbo = geometry("zimage_turbo")
    assert flops.parameters(turbo).transformer == pytest.approx(6.15e9, rel=2e-3)
    assert flops.step_flops(turbo, 4096, 64).total == pytest.approx(55.6e12, rel=2e-3)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("height", "width", "text_tokens"), [(256, 256, 64), (240, 272, 50)])
def test_a_forward_costs_what_torch_counts(name: str, height: int, width: int, text_tokens: int) -> None:
    """240x272 makes 255 image tokens, which like 50 text tokens is no multiple of 32: padding must be counted."""
    g = geometry(name)
    transformer = module(name, "transformer")
    latent = torch.empty(16, 1, height // 8, width // 8, device="meta")
    text = torch.empty(text_tokens, g.transformer.cap_feat_dim, device="meta")
    theirs = counted(lambda: transformer([latent], torch.empty(1, device="meta"), [text]))
    assert_equal(flops.step_flops(g, g.image_tokens(height, width), text_tokens), theirs)


def test_a_cached_step_costs_its_computed_blocks_and_everything_outside(tiny: Any) -> None:
    """A threshold of one caches every step it may: two warm-up steps, then at most three in a row.

    So c of the eight steps run only the first block, and torch must count 8 - c whole forwards and c short ones.
    """
    import cache_dit

    g = geometry("zimage_tiny")
    text = torch.randn(40, g.transformer.cap_feat_dim, generator=torch.Generator().manual_seed(0))
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=2,
        residual_diff_threshold=1.0,
        max_continuous_cached_steps=3,
        num_inference_steps=8,
    )
    arguments = {"height": 128, "width": 128, "num_inference_steps": 8, "guidance_scale": 0.0, "output_type": "latent"}
    cache_dit.enable_cache(tiny, cache_config=config)
    try:
        theirs = counted(lambda: tiny(prompt_embeds=[text], **arguments))
        cached = len(cache_dit.summary(tiny, logging=False)[0].cached_steps)
    finally:
        cache_dit.disable_cache(tiny)
    assert cached >= 3
    full, short = (flops.step_flops(g, 64, 40, blocks) for blocks in (None, 1))
    assert full.total * (8 - cached) + short.total * cached == pytest.approx(theirs.total, rel=EXACT)


@pytest.mark.parametrize("name", PRESETS)
def test_the_text_encoder_costs_what_torch_counts(name: str) -> None:
    """The counter counts the whole square of a causal attention, as does the kernel that a padding mask asks for."""
    encoder = module(name, "text_encoder")
    theirs = counted(lambda: encoder(input_ids=torch.zeros(1, 512, dtype=torch.long, device="meta")))
    assert_equal(flops.text_encoder_flops(geometry(name)), theirs)


def test_the_pipeline_runs_its_encoder_over_512_tokens_whatever_the_prompt(tiny: Any) -> None:
    theirs = counted(lambda: tiny.encode_prompt("a cat", do_classifier_free_guidance=False))
    assert flops.text_encoder_flops(geometry("zimage_tiny")).total == pytest.approx(theirs.total, rel=EXACT)


@pytest.mark.parametrize("name", PRESETS)
def test_a_vae_decode_costs_what_torch_counts(name: str) -> None:
    vae = module(name, "vae")
    theirs = counted(lambda: vae.decode(torch.empty(1, 16, 32, 48, device="meta")))
    assert_equal(flops.vae_decode_flops(geometry(name), 256, 384), theirs)


def test_blocks_and_tokens_out_of_range_are_refused() -> None:
    tiny = geometry("zimage_tiny")
    with pytest.raises(ValueError, match="blocks=11: must be between 0 and the 10 main blocks"):
        flops.step_flops(tiny, 256, 64, blocks=11)
    with pytest.raises(ValueError, match="text_tokens=0"):
        flops.step_flops(tiny, 256, 0)
