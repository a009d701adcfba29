"""Short texts, another decode and a host that runs ahead, beneath what the engine hooks a pipeline with."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import DBCacheConfig, OffloadConfig, SCMConfig
from zbench.engines.reference.caching import CacheSwitch
from zbench.engines.reference.decoded import Decoded, pixels_of
from zbench.engines.reference.host_copy import HostCopy
from zbench.engines.reference.offloading import Offloading
from zbench.engines.reference.pipeline import _watched
from zbench.engines.reference.text_tokens import TextTokens, cut_tokens
from zbench.zimage.fast import shapes
from zbench.zimage.fast.ahead import run_ahead
from zbench.zimage.fast.decode import speed_decode
from zbench.zimage.fast.text import shorten_text
from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline

TOLERANCE = 1e-5
PROMPTS = ("a red circle", "a blue square on the left " * 15)
FORCED = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", scm_preset="ultra")


def loaded() -> Any:
    return load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cpu")


def image(pipe: Any) -> torch.Tensor:
    made: torch.Tensor = pipe(
        list(PROMPTS),
        height=64,
        width=64,
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
        output_type="pt",
    ).images
    return made


def sped(pipe: Any, *, compiled: bool) -> list[Any]:
    return [
        shorten_text(pipe, compiled=compiled),
        speed_decode(pipe.vae, "compiled" if compiled else "channels_last"),
        run_ahead(pipe),
    ]


@pytest.fixture(scope="module")
def own() -> torch.Tensor:
    return image(loaded())


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dynamo's graphs run as they are."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(shapes, "BACKEND", "eager")
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("mode", ["none", "text_encoder", "dit", "vae", "all", "group"])
@pytest.mark.parametrize("compiled", [False, True])
def test_offloaded_the_image_is_the_same_and_so_is_what_moves(own: torch.Tensor, mode: str, compiled: bool) -> None:
    """But for the text encoder's last layer, which nobody asks for."""
    plain, pipe = loaded(), loaded()
    moves = Offloading(plain, OffloadConfig(mode=mode), "cpu")
    undos = sped(pipe, compiled=compiled)
    offloading = Offloading(pipe, OffloadConfig(mode=mode), "cpu")
    for made in (image(plain), image(pipe)):
        assert float((made - own).abs().max()) <= TOLERANCE
    expected, moved = moves.moved_bytes or {}, offloading.moved_bytes or {}
    assert {k: v for k, v in moved.items() if k != "text_encoder"} == {
        k: v for k, v in expected.items() if k != "text_encoder"
    }
    assert moved.get("text_encoder", 0) < expected.get("text_encoder", 1)
    graphs = counters["stats"]["unique_graphs"]
    assert (graphs > 0) is compiled
    image(pipe)
    assert counters["stats"]["unique_graphs"] == graphs  # hooks that count are no reason to compile anew
    while undos:
        undos.pop()()
    assert float((image(pipe) - own).abs().max()) <= TOLERANCE


def test_a_cache_goes_on_and_off_and_what_watches_sees_what_it_saw(own: torch.Tensor) -> None:
    plain, pipe = loaded(), loaded()
    undos = sped(pipe, compiled=False)
    seen = []
    for each in (plain, pipe):
        cache, clock = CacheSwitch(each), _watched(each, False, lambda doing: None)
        tokens, decoded = TextTokens(each.transformer), Decoded(each)
        for config in (FORCED, DBCacheConfig(), None):
            cache.off() if config is None else cache.set(config, 4)
            clock.reset()
            made = image(each)
            seen.append((made, cache.statistics()[0], tokens.latest, decoded.take_finite()))
            assert len(clock.spans_s("text_encode")) == len(clock.spans_s("decode")) == 1
        clock.close()
        tokens.close()
        decoded.close()
    assert torch.equal(seen[2][0], own) and seen[0][1]  # the mask skips steps
    for theirs, ours in zip(seen[:3], seen[3:], strict=True):
        assert float((theirs[0] - ours[0]).abs().max()) <= TOLERANCE and theirs[1:] == ours[1:]
    for undo in reversed(undos):
        undo()
    assert torch.equal(image(pipe), own)


def test_tokens_that_are_cut_are_counted_as_before() -> None:
    from zbench.config import PipelineConfig, Prompt

    config = PipelineConfig(name="tiny", preset="zimage_tiny", max_sequence_length=20)
    prompts = [Prompt(id=str(k), text=text) for k, text in enumerate(PROMPTS)]
    pipe = loaded()
    before = cut_tokens(pipe.tokenizer, config, prompts)
    undo = shorten_text(pipe, compiled=False)
    made, _ = pipe.encode_prompt(list(PROMPTS), "cpu", False, max_sequence_length=20)
    undo()
    assert before == cut_tokens(pipe.tokenizer, config, prompts) and set(before) == {"1"}
    assert made[1].shape[0] == 20


def test_weights_keep_their_layout_on_the_host_and_back() -> None:
    conv = torch.nn.Conv2d(64, 64, 3).to(memory_format=torch.channels_last)
    values = conv.weight.detach().clone()
    copy = HostCopy(conv.parameters(), torch.device("cpu"), pin=False)
    for move in (lambda: None, copy.fetch, copy.drop):
        move()
        assert torch.equal(conv.weight, values) and conv.weight.is_contiguous(memory_format=torch.channels_last)
    conv.to(memory_format=torch.contiguous_format)  # undone, before what waits is fetched again
    copy.fetch()
    assert torch.equal(conv.weight, values)


def test_pixels_of_a_batch_are_each_its_own() -> None:
    first, second = pixels_of(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]))
    assert first.max() == 0 and second.min() == 255
