"""The fast path's pieces together on a resident pipeline: the image of eager, with every cache on and off, and undone.

Nothing is compiled here: that takes minutes, and changes no more than the order of sums.
"""

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from factories import TINY, trial

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, OffloadConfig, SCMConfig
from zbench.engines import Generation
from zbench.engines.reference.pipeline import ReferencePipeline

for piece in ("attention", "feed_forward", "text", "decode"):
    pytest.importorskip(f"zbench.zimage.fast.{piece}")

SMALL = replace(TINY, height=128, width=128, steps=4)
PROMPTS = ("a large red circle on a white background", "a star", " ".join(["a blue square"] * 30))
KNOBS = {"qkv": "fused", "rope": "real", "ffn": "fused", "text": "short", "decode": "channels_last"}
FAST = ComputeConfig(device="cpu", graphs="auto", **KNOBS)
CACHES = (
    CacheConfig(),
    DBCacheConfig(max_warmup_steps=1, residual_diff_threshold=0.4),
    SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", scm_preset="fast"),
    CacheConfig(),
)


def made(engine: ReferencePipeline) -> list[Generation]:
    """An image of every prompt under every cache, switched on the loaded pipeline."""
    found = []
    for cache in CACHES:
        engine.configure(trial(cache, pipeline=SMALL, compute=engine._trial.compute))
        found += [engine.generate(prompt, 0) for prompt in PROMPTS]
    return found


@pytest.fixture(scope="module")
def eager(one_thread: None) -> list[Generation]:
    engine = ReferencePipeline()
    engine.launch(trial(pipeline=SMALL, compute=ComputeConfig(device="cpu")))
    try:
        return made(engine)
    finally:
        engine.close()


@pytest.fixture
def engine() -> Iterator[ReferencePipeline]:
    engine = ReferencePipeline()
    yield engine
    engine.close()


def difference(ours: Generation, theirs: Generation) -> float:
    """Relative, of latents in float32."""
    assert ours.latents is not None and theirs.latents is not None
    return float(np.linalg.norm(ours.latents - theirs.latents) / np.linalg.norm(theirs.latents))


@pytest.mark.parametrize("mode", ["none", "all"])
def test_all_pieces_make_eagers_images_with_every_cache(
    mode: str, engine: ReferencePipeline, eager: list[Generation]
) -> None:
    engine.launch(trial(pipeline=SMALL, compute=FAST, offload=OffloadConfig(mode=mode)))
    for ours, theirs in zip(made(engine), eager, strict=True):
        assert difference(ours, theirs) < 1e-5
        assert np.abs(ours.image.astype(int) - theirs.image.astype(int)).max() <= 1
        assert ours.cached_steps == theirs.cached_steps and ours.text_tokens == theirs.text_tokens


@pytest.mark.parametrize("knob", sorted(KNOBS))
def test_a_piece_alone_makes_eagers_images(knob: str, engine: ReferencePipeline, eager: list[Generation]) -> None:
    of = trial(pipeline=SMALL, compute=ComputeConfig(device="cpu", **{knob: KNOBS[knob]}))
    engine.launch(of)
    engine.configure(of)
    for prompt, theirs in zip(PROMPTS, eager, strict=False):
        assert difference(engine.generate(prompt, 0), theirs) < 1e-5
    assert engine.effective().fast == {knob: KNOBS[knob]}


def test_what_took_effect_is_told_and_close_puts_all_back_but_joined_layers(engine: ReferencePipeline) -> None:
    plain = ReferencePipeline()
    plain.launch(trial(pipeline=SMALL, compute=ComputeConfig(device="cpu")))
    names = {name for name, _ in plain.pipe.transformer.named_parameters()}
    plain.close()
    engine.launch(trial(pipeline=SMALL, compute=FAST))
    engine.configure(trial(pipeline=SMALL, compute=FAST))
    told = engine.effective()
    assert (told.fast, told.graphs, told.quantized) == (KNOBS, "none", {})
    pipe = engine.pipe
    assert {name for name, _ in pipe.transformer.named_parameters()} != names
    engine.close()
    assert "_encode_prompt" not in vars(pipe) and "forward" not in vars(pipe.vae.decoder)
