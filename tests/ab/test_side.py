"""A worker of one side, asked in this process, and which sides may share one."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import TESTS
from factories import TINY, measurement, trial

from zbench.ab.side import (
    MOST_AGAIN,
    ImagesInvalid,
    Side,
    SideFailed,
    SideWorker,
    refuse_other_content,
    share_a_pipeline,
    warm_up,
)
from zbench.config import ComputeConfig, DBCacheConfig, EngineConfig, PipelineConfig
from zbench.errors import Exit, ZbenchError
from zbench.measurement import Request


def test_progress_of_loading_does_not_disturb_a_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "engines"))
    options = {"load_s": 0.6, "load_bytes": 1000}
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options=options)
    worker = SideWorker([Side("a", trial(engine=engine))], tmp_path / "worker.log", timeout_s=60)
    try:
        worker.prepare(0.0)
        assert worker.effective["a"]["weights"] == "synthetic"
        assert worker.generate("a", 0).latency_s > 0
    finally:
        worker.close()


def test_a_worker_that_died_after_an_answer_is_blamed_on_who_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "engines"))
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine")
    sides = [Side("a", trial(engine=engine)), Side("b", trial(cache=DBCacheConfig(), engine=engine))]
    worker = SideWorker(sides, tmp_path / "worker.log", timeout_s=60)
    try:
        worker.prepare(0.0)
        worker.generate("a", 0)
        worker._client.kill()
        worker._client.process.wait()
        with pytest.raises(SideFailed) as failure:
            worker.generate("b", 0)
        assert failure.value.side == "a" and failure.value.broken
    finally:
        worker.close()


def test_a_worker_knows_all_that_work_for_the_other_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "engines"))
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine")
    one, other = (SideWorker([Side(name, trial(engine=engine))], tmp_path / name, timeout_s=60) for name in ("a", "b"))
    try:
        one.prepare(0.0)
        other._pids = [7]  # a server that was there before
        one.knows_beside([one, other])
        assert one._beside == [other._client.process.pid, 7]
        assert set(one.pids) == {one._client.process.pid}
        assert one.generate("a", 0).valid
    finally:
        one.close()
        other.close()


class Steady:
    """Stands in for a worker whose rounds all take a second, but for those of the warm-up of `b`."""

    def __init__(self) -> None:
        self.made = 0

    def generate(self, name: str, index: int) -> SimpleNamespace:
        self.made += 1
        return SimpleNamespace(latency_s=2.0 / self.made if name == "b" else 1.0)


@pytest.mark.parametrize(("bound", "rounds"), [(0, 1), (2, 2), (7, 7)])
def test_warm_up_takes_turns_until_the_slower_to_settle_or_the_bound(bound: int, rounds: int) -> None:
    workers: Any = {"a": Steady(), "b": Steady()}
    series = warm_up(workers, bound, lambda name, latency_s: None)
    assert [len(latencies) for latencies in series.values()] == [rounds, rounds]


CACHED = trial(cache=DBCacheConfig())
COMPILED = ComputeConfig(device="cpu", compile=True)


@pytest.mark.parametrize(
    ("b", "shared"),
    [
        (Side("b", trial()), True),
        (Side("b", CACHED), True),
        (Side("b", trial(pipeline=replace(TINY, steps=12))), True),
        (Side("b", trial(pipeline=replace(TINY, width=512))), False),
        (Side("b", CACHED, home=Path("elsewhere")), False),
        (Side("b", CACHED, python="python-of-another-venv", home=None), False),
    ],
)
def test_only_one_pipeline_of_one_code_is_shared(b: Side, shared: bool) -> None:
    assert share_a_pipeline(Side("a", trial()), b) is shared


def test_compiled_sides_are_kept_apart() -> None:
    """Going from one setting to the other might compile again."""
    assert not share_a_pipeline(Side("a", trial(compute=COMPILED)), Side("b", trial(compute=COMPILED)))


def of_weights(name: str, weights: str) -> Side:
    return Side(name, trial(pipeline=PipelineConfig(preset="zimage_tiny", weights=weights)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["weights", "configs", "lora"])
def test_sides_that_name_the_same_weights_and_loaded_others_are_refused(kind: str) -> None:
    """Replaced between the loading of one and the other, or a preset that another revision has otherwise."""
    sides = [of_weights("a", "X"), of_weights("b", "X")]
    loaded: Any = {"a": {f"{kind}_sha256": "a" * 64}, "b": {f"{kind}_sha256": "b" * 64}}
    with pytest.raises(
        ZbenchError, match=f"name the same {kind} and loaded others.*aaaaaaaaaaaa → bbbbbbbbbbbb"
    ) as refusal:
        refuse_other_content(sides, loaded)
    assert refusal.value.exit_code == Exit.BAD_INPUT and not isinstance(refusal.value, SideFailed)
    refuse_other_content([of_weights("a", "X"), of_weights("b", "Y")], loaded)  # on purpose
    refuse_other_content(sides, {"a": loaded["a"], "b": {}})  # an older zbench, which does not say
    refuse_other_content(sides, {"a": loaded["a"], "b": loaded["a"]})


def scripted_side(monkeypatch: pytest.MonkeyPatch, *reasons: list[str]) -> SideWorker:
    """One whose requests are invalid for these reasons, one after another, and then the last one for ever."""
    (first, *_) = measurement(trial()).requests
    coming = list(reasons)

    def request(self: SideWorker, name: str, index: int) -> Request:
        why = coming.pop(0) if len(coming) > 1 else coming[0]
        return replace(first, invalid_reasons=why, valid=not why)

    monkeypatch.setattr(SideWorker, "_request", request)
    worker = SideWorker.__new__(SideWorker)
    worker.against = Counter()
    return worker


THERMAL = ["throttled:hw_thermal"]


def test_a_round_on_a_throttled_gpu_is_made_again_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    once = scripted_side(monkeypatch, THERMAL, [])
    assert once.generate("a", 0).valid and once.against == {"throttled:hw_thermal": 1}
    always = scripted_side(monkeypatch, THERMAL)
    assert not always.generate("a", 0).valid and always.against == {"throttled:hw_thermal": 1 + MOST_AGAIN}


def test_a_round_beside_a_foreign_process_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    once = scripted_side(monkeypatch, ["foreign_process"], [])
    assert once.generate("a", 0).valid and once.against == {"foreign_process": 1}


def test_images_that_are_none_are_none_on_a_throttled_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = scripted_side(monkeypatch, ["black_image", *THERMAL])
    with pytest.raises(ImagesInvalid, match="black_image"):
        worker.generate("a", 0)
