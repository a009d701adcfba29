"""The engine over a real HTTP server: what it asks, what it keeps of the answers, and what it doubts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from factories import TINY, trial
from fake_nvml import GIB, FakeGpu, FakeNvml
from images_server import Call, ScriptedServer, images_server, picture, pixels

from zbench.config import CacheConfig, DBCacheConfig
from zbench.engines import Engine
from zbench.engines.images_client import ImagesServerError
from zbench.engines.openai_images import ImagesEngine
from zbench.engines.openai_images.listening import ELSEWHERE, HIDDEN, watched_at
from zbench.hardware.nvml import Nvml
from zbench.trial import Trial

SMALL = replace(TINY, width=64, height=48)
CACHED = DBCacheConfig(residual_diff_threshold=0.4)


def small(cache: CacheConfig | None = None, **changes: Any) -> Trial:
    return trial(cache, pipeline=replace(SMALL, **changes))


def paints(call: Call) -> None:
    call.images(*[picture(call.body.get("seed", 0) + k) for k in range(call.body.get("n", 1))])


@contextmanager
def engine_over(server: ScriptedServer, **options: Any) -> Iterator[Any]:
    made: Engine = ImagesEngine(server.url, **{"ready_s": 30} | options).engine()
    try:
        yield made
    finally:
        made.close()


def bodies(server: ScriptedServer) -> list[dict[str, Any]]:
    return [call.body for call in server.calls if call.path.endswith("/generations")]


def test_the_first_request_after_a_change_is_no_sample() -> None:
    """Launch asks once; a setting that is the same asks no more, another one asks once."""
    with images_server(paints) as server, engine_over(server) as engine:
        engine.launch(small())
        engine.configure(small())
        assert len(bodies(server)) == 1
        made = engine.generate("a cat", 5)
        assert (made.image == pixels(5)).all() and made.served and made.latents is None
        engine.configure(small(CACHED))
        assert [body["enable_cache_dit"] for body in bodies(server)] == [False, False, True]
        engine.configure(small(CACHED))
        engine.configure(small(CACHED, steps=4))
        engine.configure(small())
    assert [(b["enable_cache_dit"], b["num_inference_steps"]) for b in bodies(server)[3:]] == [(True, 4), (False, 8)]


def test_what_the_server_tells_is_kept() -> None:
    told = {
        "seed": 5,
        "steps": 8,
        "cache": "F1B0_W4_MC3_R0.4",
        "cached_steps": [[4, 6], [5]],
        "stages_s": [{"text_encode": 0.1, "denoise": 0.2, "decode": "x"}],
    }
    said = {"inference_time_s": 0.5, "peak_memory_mb": 2, "zbench": told}
    with images_server(lambda call: call.images(picture(), **said)) as server, engine_over(server) as engine:
        engine.launch(small(CACHED))
        engine.configure(small(CACHED))
        made = engine.generate("a cat", 5)
        effective = engine.effective()
    assert made.server_s == 0.5 and made.server_peak_bytes == 2 * 2**20 and made.cached_steps == [4, 6]
    assert made.stages_s == {"text_encode": 0.1, "denoise": 0.2} and made.steps_s == []
    assert effective.steps == 8 and effective.tells_cached_steps is True and effective.doubts == []
    assert effective.other["server"] == server.url and effective.other["cache"] == "F1B0_W4_MC3_R0.4"
    assert "judged against its own" in str(effective.weights_note) and effective.weights is None


@pytest.mark.parametrize(
    "told",
    [
        3,
        {"seed": "x", "steps": 10**30, "cache": ["a"], "cached_steps": [[-1, "b"]], "stages_s": [{"denoise": -1}]},
        {"steps": True, "cached_steps": 5, "stages_s": {"denoise": 1}, "compiled": "yes"},
        {"steps": -1, "cached_steps": [[10**9]], "stages_s": []},
    ],
)
def test_what_is_told_in_another_form_is_not_told(told: Any) -> None:
    """A record must be readable whatever a server writes."""
    with images_server(lambda call: call.images(picture(), zbench=told)) as server, engine_over(server) as engine:
        engine.launch(small(CACHED))
        engine.configure(small(CACHED))
        made, effective = engine.generate("a cat", 5), engine.effective()
    assert made.cached_steps == [] and made.stages_s == {} and not made.compiled
    assert effective.steps is None and effective.tells_cached_steps is False and effective.doubts == []


def test_names_without_end_are_cut() -> None:
    def script(call: Call) -> None:
        if call.path == "/v1/models":
            call.answer(200, {"data": [{"id": "m" * 10_000}] * 100})
        else:
            call.images(picture(), zbench={"cache": "c" * 10_000})

    with images_server(script) as server, engine_over(server) as engine:
        engine.launch(small())
        engine.configure(small())
        engine.generate("a cat", 5)
        effective = engine.effective()
    assert len(effective.other["models"]) == 10 and len(str(effective)) < 3000


def test_what_is_not_as_asked_is_said() -> None:
    told = {"seed": 99, "steps": 9, "cache": "none", "cached_steps": [[]]}
    with images_server(lambda call: call.images(picture(), zbench=told)) as server, engine_over(server) as engine:
        engine.launch(small(CACHED))
        engine.configure(small(CACHED))
        engine.generate("a cat", 5)
        doubts = engine.effective().doubts
    assert doubts == [
        "asked for steps 8, the server says 9",
        "asked for cache F1B0_W4_MC3_R0.4, the server says none",
        "the server says that it took other seeds",
    ]


def test_a_server_that_tells_nothing_is_known_to_tell_nothing() -> None:
    with images_server(paints) as server, engine_over(server) as engine:
        engine.launch(small())
        engine.configure(small())
        made = engine.generate("a cat", 5)
        effective = engine.effective()
    assert made.server_s is None and effective.steps is None and effective.tells_cached_steps is False
    assert effective.doubts == []


def test_what_a_dialect_leaves_open_is_a_doubt() -> None:
    with images_server(paints) as server, engine_over(server, dialect="openai", model="m") as engine:
        engine.launch(small())
        engine.configure(small())
        engine.generate("a cat", 5)
        doubts = engine.effective().doubts
    assert doubts == [
        "steps, guidance, seeds are the server's own: requests of engine.options.dialect=openai carry none"
    ]
    assert bodies(server)[-1] == {
        "prompt": "a cat", "n": 1, "size": "64x48", "response_format": "b64_json", "model": "m"
    }  # fmt: skip


def test_further_fields_are_sent_and_those_that_are_null_are_not() -> None:
    fields = {"quality": "low", "response_format": None, "generator_device": "cuda"}
    with images_server(paints) as server, engine_over(server, fields=fields) as engine:
        engine.launch(small())
    [body] = bodies(server)
    assert body["quality"] == "low" and body["generator_device"] == "cuda" and "response_format" not in body


@pytest.mark.parametrize(
    ("changes", "answer", "says"),
    [
        ({}, (picture(), picture()), "asked for n=1 and answered with 2 images"),
        ({"images_per_prompt": 2}, (picture(),), "asked for n=2 and answered with 1 images"),
        ({}, (picture(size=(32, 32)),), "asked for pipeline.width=64 pipeline.height=48 and answered with an image of"),
    ],
)
def test_other_work_than_was_asked_for_fails_the_trial(changes: Any, answer: Any, says: str) -> None:
    with images_server(lambda call: call.images(*answer)) as server, engine_over(server) as engine:
        with pytest.raises(ImagesServerError, match=says) as told:
            engine.launch(small(**changes))
        assert told.value.code == "other_work" and len(bodies(server)) == 1


def test_a_server_that_loads_is_waited_for() -> None:
    def loads(call: Call) -> None:
        if len(server.calls) < 3:
            call.answer(503, {"error": {"message": "it loads"}})
        else:
            paints(call)

    with images_server(loads) as server, engine_over(server) as engine:
        engine.launch(small())
        assert len(bodies(server)) == 3


def test_one_that_is_never_ready_is_given_up() -> None:
    with images_server(lambda call: call.answer(503, {"error": {"message": "it loads"}})) as server:
        with engine_over(server, ready_s=0.01) as engine, pytest.raises(ImagesServerError, match="it loads") as told:
            engine.launch(small())
        assert told.value.code == "http_status" and told.value.status == 503


def test_one_that_answers_with_an_error_is_not_waited_for() -> None:
    with images_server(lambda call: call.answer(400, {"detail": "no such field"})) as server, engine_over(server) as e:
        with pytest.raises(ImagesServerError, match="no such field"):
            e.launch(small())
        assert len(server.calls) == 1


def test_a_server_of_this_machine_is_watched() -> None:
    with images_server(paints) as server:
        watched = watched_at(server.url)
        assert os.getpid() in watched.pids
        assert watched_at(server.url.replace("127.0.0.1", "localhost")).pids == watched.pids


def test_a_server_elsewhere_is_not() -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    assert watched_at("http://192.0.2.1:30000").unseen == ELSEWHERE
    assert watched_at("http://no.such.host.invalid:1").unseen == ELSEWHERE
    assert watched_at("http://127.0.0.1:1").unseen == HIDDEN


def own_tree() -> tuple[int, int]:
    """This process, which serves here, and another."""
    return os.getpid(), os.getppid()


def test_of_several_devices_the_servers_own_are_watched() -> None:
    own, other = own_tree()
    gpus = (FakeGpu(compute={other: GIB}), FakeGpu(compute={own: 20 * GIB, other: GIB}))
    with images_server(paints) as server:
        watched = watched_at(server.url, Nvml(FakeNvml(*gpus)))
        assert watched.devices == (1,) and watched.unseen is None


def test_a_device_that_does_not_show_whose_memory_is_whose_is_not_watched() -> None:
    """What the server held before zbench came cannot be told by a difference."""
    with images_server(paints) as server:
        watched = watched_at(server.url, Nvml(FakeNvml(FakeGpu(compute={os.getpid(): None}))))
        assert watched.devices == () and watched.unseen == HIDDEN and os.getpid() in watched.pids
        assert watched_at(server.url, Nvml(FakeNvml())).unseen is None, "no device hides nothing"
