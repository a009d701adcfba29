"""Batches, guidance and VAE options on the real engine: the tiny pipeline at 64×64, a few steps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import TINY, trial
from sharded import save_in_shards

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import CacheConfig, DBCacheConfig, PipelineConfig, Prompt, SCMConfig, WorkloadConfig
from zbench.engines import Generation
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.errors import WeightsUnavailableError
from zbench.worker.request import Turn, one_request
from zbench.workload import Pair

SMALL = replace(TINY, height=64, width=64, steps=8)
PROMPT = "a large red circle on a white background"
MASK = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", scm_preset="ultra")
SKIPPED = [2, 3, 5, 6]  # by that mask at 8 steps: 11001001


@contextmanager
def loaded(**changes: Any) -> Iterator[ReferencePipeline]:
    engine = ReferencePipeline()
    engine.launch(trial(pipeline=replace(SMALL, **changes)))
    try:
        yield engine
    finally:
        engine.close()


def made(cache: CacheConfig | None = None, seed: int = 7, **changes: Any) -> Generation:
    with loaded(**changes) as engine:
        engine.configure(trial(cache, pipeline=replace(SMALL, **changes)))
        return engine.generate(PROMPT, seed)


@pytest.fixture(scope="module")
def alone(one_thread: None) -> Generation:
    return made()


@pytest.mark.parametrize(("batch", "each"), [(2, 1), (1, 3), (2, 2)])
def test_the_first_image_of_a_batch_is_that_of_its_seed_alone(batch: int, each: int, alone: Generation) -> None:
    several = made(batch_size=batch, images_per_prompt=each)
    assert several.images == batch * each and alone.images == 1
    assert several.latents is not None and alone.latents is not None
    np.testing.assert_allclose(several.latents, alone.latents, atol=1e-4)
    assert np.abs(several.image.astype(int) - alone.image).max() <= 1
    assert several.text_tokens == alone.text_tokens * (batch * each)


def test_every_image_of_a_batch_has_a_seed_of_its_own() -> None:
    decoded: list[torch.Tensor] = []
    with loaded(batch_size=2, images_per_prompt=2) as engine:
        vae = engine.pipe.vae
        vae.decoder.register_forward_pre_hook(lambda _, args: decoded.append(args[0]))
        engine.generate(PROMPT, 7)
        (latents,) = ((batch - vae.config.shift_factor) * vae.config.scaling_factor for batch in decoded)
    for k in range(4):
        expected = made(seed=7 + k).latents
        assert expected is not None
        np.testing.assert_allclose(latents[k].numpy(), expected, atol=1e-4)


def test_prompt_tokens_are_those_of_the_chat_template(alone: Generation) -> None:
    """Without the padding that the text encoder reads, and with guidance those of the negative prompt after them."""
    with loaded() as engine:
        tokenizer = engine.pipe.tokenizer

        def tokens(prompt: str) -> int:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            return len(tokenizer(text).input_ids)

        assert alone.text_tokens == [tokens(PROMPT)]
        expected = [tokens(PROMPT), tokens("")]
    assert made(guidance_scale=5.0).text_tokens == expected


def test_a_round_keeps_how_many_images_and_tokens() -> None:
    with loaded(images_per_prompt=2) as engine:
        timed, _ = one_request(engine, Pair("p", PROMPT, 0), Turn(0, "t"), 0.0)
    assert timed.images == 2 and len(timed.text_tokens) == 2 and min(timed.text_tokens) > 5


def test_a_host_has_no_device_clock_and_a_gpus_spans_the_whole_call(alone: Generation) -> None:
    assert alone.device_s is None
    with loaded() as engine:
        engine.device = "cuda"  # with a host's marks in place of events
        image = engine.generate(PROMPT, 0)
        engine.device = "cpu"
    assert image.device_s is not None and sum(image.stages_s.values()) < image.device_s <= image.latency_s


def test_unwatched_and_closed_pipelines_have_no_hooks() -> None:
    engine = ReferencePipeline()
    engine.launch(trial(pipeline=SMALL))
    transformer = engine.pipe.transformer
    hooks = [transformer._forward_pre_hooks, transformer._forward_hooks]
    assert all(hooks) and "postprocess" in vars(engine.pipe.image_processor)
    with engine.unwatched():
        assert not any(hooks) and "postprocess" not in vars(engine.pipe.image_processor)
    assert engine.generate(PROMPT, 0).text_tokens, "watched again"
    engine.close()
    assert not any(hooks)


@contextmanager
def blocks_run(engine: ReferencePipeline) -> Iterator[list[list[int]]]:
    """Of every forward of the transformer, how many samples each of its middle blocks was run on."""
    forwards: list[list[int]] = []
    transformer = engine.pipe.transformer
    hooks = [transformer.register_forward_pre_hook(lambda *_: forwards.append([]))]
    for block in list(transformer.layers)[1:]:
        hooks.append(block.register_forward_pre_hook(lambda _, args: forwards[-1].append(args[0].shape[0])))
    try:
        yield forwards
    finally:
        for hook in hooks:
            hook.remove()


CACHES = {
    "none": CacheConfig(),
    "dbcache": DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.4, max_continuous_cached_steps=2),
    "static": MASK,
    "taylorseer": replace(MASK, enable_taylorseer=True),
}


@pytest.mark.parametrize("name", CACHES)
def test_with_guidance_cached_steps_are_the_steps_whose_middle_blocks_were_skipped(name: str) -> None:
    """One forward of twice the batch a step: cache-dit must not take it for two passes."""
    with loaded(guidance_scale=5.0) as engine:
        engine.configure(trial(CACHES[name], pipeline=replace(SMALL, guidance_scale=5.0)))
        for seed in (0, 1):  # the second generation begins anew
            with blocks_run(engine) as forwards:
                image = engine.generate(PROMPT, seed)
            assert len(forwards) == len(image.steps_s) == SMALL.steps
            assert image.cached_steps == [step for step, samples in enumerate(forwards) if not samples]
            assert {samples for forward in forwards for samples in forward} == {2}
            assert {len(forward) for forward in forwards} <= {0, engine.effective().n_blocks - 1}
            if name in ("static", "taylorseer"):
                assert image.cached_steps == SKIPPED
            elif name == "dbcache":
                assert image.cached_steps and set(image.residual_diffs) <= {str(step) for step in range(2, SMALL.steps)}


def test_guidance_changes_the_image(alone: Generation) -> None:
    assert not np.array_equal(made(guidance_scale=5.0).image, alone.image)


@pytest.fixture(scope="module")
def small_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_in_shards(tmp_path_factory.mktemp("official") / "pipeline") / "vae"


def test_another_vae_decodes_the_same_latents(small_vae: Path, alone: Generation) -> None:
    with loaded(vae=str(small_vae)) as engine:
        other, effective = engine.generate(PROMPT, 7), engine.effective()
    assert other.latents is not None and alone.latents is not None
    assert np.array_equal(other.latents, alone.latents) and not np.array_equal(other.image, alone.image)
    assert effective.vae == str(small_vae)
    with loaded() as engine:
        own = engine.effective()
    assert own.vae is None and own.weights_sha256 != effective.weights_sha256
    assert own.configs_sha256 is not None and own.configs_sha256 != effective.configs_sha256


def test_random_weights_name_their_seed_and_take_a_vae(small_vae: Path) -> None:
    with loaded(weights="random") as engine:
        plain = engine.effective()
    assert (plain.weights, plain.weights_seed, plain.weights_sha256) == ("random", 0, None)
    assert plain.configs_sha256 is not None
    with loaded(weights="random", vae=str(small_vae)) as engine:
        engine.generate(PROMPT, 0)
        assert engine.effective().weights_sha256 is not None, "of the VAE's file"


def test_a_vae_with_another_weight_is_refused_by_key_and_folder(small_vae: Path, tmp_path: Path) -> None:
    import json
    import shutil

    vae = Path(shutil.copytree(small_vae, tmp_path / "vae"))
    config = json.loads((vae / "config.json").read_text())
    (vae / "config.json").write_text(json.dumps({**config, "layers_per_block": 2}))
    engine = ReferencePipeline()
    with pytest.raises(WeightsUnavailableError, match=rf"pipeline\.vae={vae}: .*missing weights"):
        engine.launch(trial(pipeline=replace(SMALL, vae=str(vae))))


def vae_calls(pipeline: PipelineConfig) -> tuple[list[tuple[int, ...]], dict[str, Any], Generation]:
    """Shapes the VAE's decoder saw."""
    engine = ReferencePipeline()
    engine.launch(trial(pipeline=pipeline))
    shapes: list[tuple[int, ...]] = []
    engine.pipe.vae.decoder.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    image, effective = engine.generate(PROMPT, 7), engine.effective()
    engine.close()
    return shapes, effective, image


def test_slicing_decodes_one_image_at_a_time(alone: Generation) -> None:
    shapes, effective, sliced = vae_calls(replace(SMALL, vae_slicing=True, images_per_prompt=2))
    assert [shape[0] for shape in shapes] == [1, 1] and effective.vae_slicing is True
    assert np.abs(sliced.image.astype(int) - alone.image).max() <= 1
    shapes, effective, _ = vae_calls(replace(SMALL, vae_slicing=True))
    assert len(shapes) == 1 and effective.vae_slicing is False, "there was nothing to slice"


def test_tiling_decodes_in_tiles_where_the_image_is_larger_than_one() -> None:
    large = replace(SMALL, width=272, steps=1, vae_tiling=True)  # a tile of the tiny VAE is 256 pixels a side
    shapes, effective, tiled = vae_calls(large)
    assert len(shapes) > 1 and effective.vae_tiling is True and tiled.image.shape == (64, 272, 3)
    shapes, effective, _ = vae_calls(replace(large, width=256))
    assert len(shapes) == 1 and effective.vae_tiling is False, "it fits one tile"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_only_the_vae_overflows_in_is_seen_before_it_becomes_bytes(value: float) -> None:
    """In any image of a call, also where one pixel alone is no number: the latents are finite and the image is not."""
    with loaded(batch_size=2, steps=1) as engine:
        engine.configure(trial(pipeline=replace(SMALL, batch_size=2, steps=1)))
        decode = engine.pipe.vae.decode

        def overflowing(*args: Any, **kwargs: Any) -> Any:
            (pixels,) = decode(*args, **kwargs)
            pixels[1, 0, 0, 0] = value
            return (pixels,)

        engine.pipe.vae.decode = overflowing
        spoilt, _ = one_request(engine, Pair("p", PROMPT, 0), Turn(0, "t"), 0.0)
        engine.pipe.vae.decode = decode
        good, _ = one_request(engine, Pair("p", PROMPT, 0), Turn(1, "t"), 0.0)
    assert (spoilt.valid, spoilt.invalid_reasons) == (False, ["non_finite_image"])
    assert good.valid and good.invalid_reasons == []


def test_a_black_image_that_is_not_the_first_of_its_call_is_seen() -> None:
    with loaded(images_per_prompt=2, steps=1) as engine:
        engine.configure(trial(pipeline=replace(SMALL, images_per_prompt=2, steps=1)))
        decode = engine.pipe.vae.decode

        def dark(*args: Any, **kwargs: Any) -> Any:
            return (decode(*args, **kwargs)[0] - torch.tensor([0.0, 9.0])[:, None, None, None],)

        engine.pipe.vae.decode = dark
        made, _ = one_request(engine, Pair("p", PROMPT, 0), Turn(0, "t"), 0.0)
        engine.pipe.vae.decode = decode
    assert made.invalid_reasons == ["black_image"]


NEGATIVE = "a small blue square on black"


@pytest.mark.parametrize("batch", [1, 2])
def test_a_negative_prompt_is_what_diffusers_is_given(batch: int) -> None:
    """Against the pipeline itself, called without zbench around it."""
    with loaded(guidance_scale=5.0, batch_size=batch, steps=2) as engine:
        with_one, without = engine.generate(PROMPT, 7, NEGATIVE), engine.generate(PROMPT, 7)
        bare = engine.pipe(
            prompt=[PROMPT] * batch,
            negative_prompt=[NEGATIVE] * batch,
            height=64,
            width=64,
            num_inference_steps=2,
            guidance_scale=5.0,
            max_sequence_length=SMALL.max_sequence_length,
            generator=[torch.Generator("cpu").manual_seed(7 + k) for k in range(batch)],
        ).images[0]
    assert np.array_equal(with_one.image, np.asarray(bare)) and not np.array_equal(with_one.image, without.image)


def test_a_round_takes_its_pairs_negative_prompt() -> None:
    with loaded(guidance_scale=5.0, steps=1) as engine:
        hashes = [
            one_request(engine, Pair("p", PROMPT, 0, negative), Turn(0, "t"), 0.0)[0].image_sha256
            for negative in ("", NEGATIVE)
        ]
        assert hashes[0] != hashes[1]


def test_what_a_prompt_is_cut_by_is_counted() -> None:
    """Against the tokenizer's own count of the template with the prompt in it, and what the transformer then saw."""
    long = ", ".join(f"small thing number {i}" for i in range(60))
    prompts = [Prompt("short", PROMPT), Prompt("long", long), Prompt("led", PROMPT, negative_prompt=long)]
    asked = trial(pipeline=SMALL, workload=WorkloadConfig(name="w", prompts=prompts))
    with loaded(steps=1) as engine:
        engine.configure(asked)
        cut = engine.effective().cut_tokens
        text = engine.pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": long}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        beyond = len(engine.pipe.tokenizer(text).input_ids) - SMALL.max_sequence_length
        assert engine.generate(long, 0).text_tokens == [SMALL.max_sequence_length]
    assert beyond > 0 and cut == {"long": beyond, "led": beyond}
