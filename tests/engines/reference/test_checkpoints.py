"""Checkpoints as people store them on the real engine: measured like any other, and the record says what was read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TRANSFORMER, plain_weights, save, save_gguf, scaled, tiny_copy
from factories import TINY, trial

from zbench.config import CacheConfig, OffloadConfig, PipelineConfig, SCMConfig
from zbench.engines import Generation
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.measurement import Effective

SMALL = replace(TINY, height=64, width=64, steps=4)
PROMPT = "a large red circle on a white background"


def made(weights: Path | str, cache: CacheConfig | None = None, **groups: Any) -> tuple[Generation, Effective]:
    engine = ReferencePipeline()
    pipeline: PipelineConfig = replace(SMALL, weights=str(weights))
    engine.launch(trial(pipeline=pipeline, **groups))
    try:
        engine.configure(trial(cache, pipeline=pipeline, **groups))
        return engine.generate(PROMPT, 0), engine.effective()
    finally:
        engine.close()


@pytest.fixture(scope="module")
def plain(one_thread: None) -> Generation:
    return made("auto")[0]


def differs(one: Generation, other: Generation) -> float:
    """Mean difference of pixels, of 255."""
    return float(np.abs(one.image.astype(int) - other.image).mean())


def test_scaled_weights_paint_what_plain_ones_do_and_the_record_says_how_they_are_stored(
    plain: Generation, tmp_path: Path
) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    save(scaled(plain_weights()), folder / TRANSFORMER)
    image, effective = made(folder)
    assert differs(image, plain) < 5
    assert effective.weights == "folder" and effective.stored_dtypes == {
        "text_encoder": ["bfloat16"],
        "transformer": ["bfloat16", "float8_e4m3fn scaled"],
        "vae": ["bfloat16"],
    }


def test_a_gguf_file_runs_with_step_skipping_and_is_named(plain: Generation, tmp_path: Path) -> None:
    file = save_gguf(plain_weights(), tmp_path / "tiny-Q8_0.gguf")
    image, effective = made(file)
    assert differs(image, plain) < 5
    assert effective.weights == "file" and effective.stored_dtypes is not None
    assert effective.weights_files is not None and effective.weights_files["transformer"] == ["tiny-Q8_0.gguf"]
    assert effective.stored_dtypes["transformer"] == ["F32", "Q8_0"]
    mask = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", scm_preset="ultra")
    cached, _ = made(file, mask)
    assert cached.cached_steps and differs(cached, image) > 0


@pytest.mark.parametrize("mode", ["dit", "group"])
def test_gguf_weights_wait_in_host_memory_and_make_the_same_image(mode: str, tmp_path: Path) -> None:
    file = save_gguf(plain_weights(), tmp_path / "tiny-Q8_0.gguf")
    images = [made(file, offload=OffloadConfig(mode=wanted))[0] for wanted in ("none", mode)]
    assert np.array_equal(images[0].image, images[1].image)


def test_what_accelerate_cannot_move_is_one_line(tmp_path: Path) -> None:
    """Its hooks make a weight anew without its kind of packing."""
    file = save_gguf(plain_weights(), tmp_path / "tiny-Q8_0.gguf")
    with pytest.raises(ConfigError, match=r"offload\.mode=sequential: it cannot move weights packed as GGUFParameter"):
        made(file, offload=OffloadConfig(mode="sequential"))


def test_a_file_is_refused_under_its_key(tmp_path: Path) -> None:
    file = save(plain_weights() | {"more": plain_weights()["x_pad_token"]}, tmp_path / "more.safetensors")
    with pytest.raises(WeightsUnavailableError, match=rf"pipeline\.weights={file}: {file}: tensors .* for: more"):
        made(file)
