"""Offload modes on the tiny pipeline, where the device is the host itself: what moves and when is the same."""

import os
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from factories import TINY, trial
from transformers import Qwen3Config, Qwen3ForCausalLM

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import CacheConfig, OffloadConfig, SCMConfig
from zbench.engines import StageError
from zbench.engines.reference.host_copy import STAYS_BELOW_BYTES, HostCopy
from zbench.engines.reference.offloading import Offloading
from zbench.engines.reference.pipeline import ReferencePipeline

SMALL = replace(TINY, height=64, width=64, steps=4, weights="random")
PROMPT = "a large red circle on a white background"
FORCED = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", scm_preset="ultra")
MOVED = {
    "text_encoder": {"text_encoder"},
    "dit": {"transformer"},
    "vae": {"vae"},
    "all": {"text_encoder", "transformer", "vae"},
    "group": {"text_encoder", "transformer", "vae"},
}


@pytest.fixture
def engine() -> Iterator[ReferencePipeline]:
    made = ReferencePipeline()
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """Images without offloading, by cache method."""
    plain = ReferencePipeline()
    plain.launch(trial(pipeline=SMALL))
    images = {}
    for cache in (CacheConfig(), FORCED):
        plain.configure(trial(cache, pipeline=SMALL))
        images[cache.method] = plain.generate(PROMPT, 0).image
    plain.close()
    return images


@pytest.mark.parametrize("mode", MOVED)
def test_every_mode_makes_the_same_images_and_says_what_it_moved(
    mode: str, engine: ReferencePipeline, expected: dict[str, Any]
) -> None:
    engine.launch(trial(pipeline=SMALL, offload=OffloadConfig(mode=mode)))
    moved = {}
    for cache in (CacheConfig(), FORCED, CacheConfig()):
        engine.configure(trial(cache, pipeline=SMALL, offload=OffloadConfig(mode=mode)))
        assert np.array_equal(engine.generate(PROMPT, 0).image, expected[cache.method])
        moved[cache.method] = engine.effective().offload_moved_bytes
    assert engine.effective().offload == mode and set(moved["none"]) == MOVED[mode]
    transformer = sum(p.nbytes for p in engine.pipe.transformer.parameters())
    if mode == "group":  # every layer in every step, but for those that are skipped
        assert 3.9 * transformer < moved["none"]["transformer"] <= 4 * transformer
        assert moved["scm"]["transformer"] < moved["none"]["transformer"]
    elif "transformer" in MOVED[mode]:  # once an image
        assert 0.9 * transformer < moved["none"]["transformer"] <= 1.01 * transformer


def test_weights_are_there_while_they_compute_and_gone_after(engine: ReferencePipeline) -> None:
    engine.launch(trial(pipeline=SMALL, offload=OffloadConfig(mode="all")))
    pipe, seen = engine.pipe, {}

    def note(stage: str) -> Any:
        def hook(*_: object) -> None:
            owners = {"text_encoder": pipe.text_encoder.layers[0], "transformer": pipe.transformer, "vae": pipe.vae}
            seen[stage] = {name for name, module in owners.items() if module_is_away(module)}

        return hook

    def module_is_away(module: Any) -> bool:
        weight = max(module.parameters(), key=lambda p: p.nbytes)
        return bool(weight.untyped_storage().data_ptr() in home)

    home = {
        max(m.parameters(), key=lambda p: p.nbytes).untyped_storage().data_ptr()
        for m in (pipe.text_encoder.layers[0], pipe.transformer, pipe.vae)
    }
    pipe.text_encoder.layers[0].mlp.register_forward_pre_hook(note("text_encode"))
    pipe.transformer.layers[0].register_forward_pre_hook(note("denoise"))
    pipe.vae.decoder.register_forward_pre_hook(note("decode"))
    engine.generate(PROMPT, 0)
    assert seen == {
        "text_encode": {"transformer", "vae"},
        "denoise": {"text_encoder", "vae"},
        "decode": {"text_encoder", "transformer"},
    }
    note("after")()
    assert seen["after"] == {"text_encoder", "transformer", "vae"}


def test_a_host_copy_is_one_block_and_small_tensors_stay() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.LayerNorm(256))
    values = [p.detach().clone() for p in module.parameters()]
    copy = HostCopy(module.parameters(), torch.device("cpu"), pin=False)
    assert copy.nbytes == 256 * 256 * 4 and module[1].weight.nbytes < STAYS_BELOW_BYTES
    there = module[0].weight.data_ptr()
    copy.fetch()
    assert copy.resident and module[0].weight.data_ptr() != there
    assert all(torch.equal(p, v) for p, v in zip(module.parameters(), values, strict=True))
    place = torch.empty(copy.nbytes + 9, dtype=torch.uint8)
    copy.fetch(place)
    assert module[0].weight.data_ptr() == place.data_ptr() and torch.equal(module[0].weight, values[0])
    copy.drop()
    assert not copy.resident and module[0].weight.data_ptr() == there


@pytest.mark.parametrize("mode", ["text_encoder", "all"])
def test_the_table_of_tokens_stays_where_it_is_and_its_rows_alone_move(
    mode: str, engine: ReferencePipeline, expected: dict[str, Any]
) -> None:
    engine.launch(trial(pipeline=SMALL, offload=OffloadConfig(mode=mode)))
    encoder = engine.pipe.text_encoder
    table, places, rows = encoder.get_input_embeddings(), [], []

    def note(_table: Any, _ids: Any, found: torch.Tensor) -> None:
        places.append(table.weight.data_ptr())
        rows.append(found.nbytes)

    home = table.weight.data_ptr()
    table.register_forward_hook(note)
    assert np.array_equal(engine.generate(PROMPT, 0).image, expected["none"])
    assert places == [home] and rows == [SMALL.max_sequence_length * encoder.config.hidden_size * 4]
    layers = sum(p.nbytes for p in encoder.layers.parameters())
    moved = engine.effective().offload_moved_bytes["text_encoder"]
    assert 0.85 * layers < moved - rows[0] <= layers, "the layers but for what is small"


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_kept_layers_stay_and_the_others_come(kept: int, engine: ReferencePipeline, expected: dict[str, Any]) -> None:
    engine.launch(trial(pipeline=SMALL, offload=OffloadConfig(mode="text_encoder", keep_layers=kept)))
    layers = engine.pipe.text_encoder.layers
    weights = [max(layer.parameters(), key=lambda p: p.nbytes) for layer in layers]
    home, came = [weight.data_ptr() for weight in weights], []
    for layer, weight, place in zip(layers, weights, home, strict=True):
        layer.mlp.register_forward_pre_hook(lambda *_, w=weight, p=place: came.append(w.data_ptr() != p))
    assert np.array_equal(engine.generate(PROMPT, 0).image, expected["none"])
    assert came == [False] * kept + [True] * (len(layers) - kept)
    rows = SMALL.max_sequence_length * engine.pipe.text_encoder.config.hidden_size * 4
    of_layer = sum(p.nbytes for p in layers[0].parameters() if p.nbytes >= STAYS_BELOW_BYTES)
    assert engine.effective().offload_moved_bytes["text_encoder"] == rows + of_layer * (len(layers) - kept)


def test_a_table_that_is_a_heads_too_comes_with_it() -> None:
    """What reads all of it cannot do with some rows."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 32, "vocab_size": 512}
    tied = Qwen3Config(**sizes, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True)
    model, ids = Qwen3ForCausalLM(tied).eval(), torch.arange(9)[None]
    with torch.no_grad():
        plain = model(ids).logits
        offloading = Offloading(SimpleNamespace(text_encoder=model), OffloadConfig(mode="text_encoder"), "cpu")
        assert torch.equal(model(ids).logits, plain)
    moved = offloading.moved_bytes
    assert moved is not None and moved["text_encoder"] >= model.get_input_embeddings().weight.nbytes == 64 * 512 * 4


@pytest.mark.parametrize(
    ("owner", "method", "stage"),
    [("text_encoder", "forward", "text_encode"), ("transformer", "forward", "denoise"), ("vae", "_decode", "decode")],
)
def test_a_generation_that_fails_says_in_which_stage(
    owner: str, method: str, stage: str, engine: ReferencePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.launch(trial(pipeline=SMALL))

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch, pytest.raises(StageError) as raised:
        patch.setattr(getattr(engine.pipe, owner), method, full)
        engine.generate(PROMPT, 0)
    assert raised.value.stage == stage and isinstance(raised.value.__cause__, torch.OutOfMemoryError)


def test_what_a_failed_image_left_on_the_device_goes_before_the_next(
    engine: ReferencePipeline, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.launch(trial(pipeline=SMALL, offload=OffloadConfig(mode="all")))

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch, pytest.raises(StageError):
        patch.setattr(engine.pipe.transformer.layers[0], "forward", full)
        engine.generate(PROMPT, 0)
    weight = max(engine.pipe.transformer.parameters(), key=lambda p: p.nbytes)
    there = weight.data_ptr()
    assert np.array_equal(engine.generate(PROMPT, 0).image, expected["none"])
    assert weight.data_ptr() != there, "the host's copy is back in its place"
    assert engine.effective().offload_moved_bytes["transformer"] > 0
