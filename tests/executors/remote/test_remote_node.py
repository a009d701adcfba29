"""What runs on another machine, here in a thread: real workers, a synthetic engine, and messages in two lists."""

import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import trial

from zbench.config import CacheConfig, DBCacheConfig, EngineConfig, MeasureConfig
from zbench.executors import Completed, Failed, Setting, Stopped, Task
from zbench.executors.remote import wire
from zbench.executors.remote.node import SCRATCH, NodeAtWork
from zbench.trial import Trial

ENGINES = Path(__file__).parent.parent.parent / "engines"
MEASURE = MeasureConfig(max_warmup_rounds=1, min_rounds=2, max_rounds=2, timeout_s=60.0)
BEGIN = wire.packed({"say": "begin", "run": "sweep-1", "share_device": True, "allow_code": True})


def synthetic(threshold: float | None = None, **options: Any) -> Trial:
    cache = CacheConfig() if threshold is None else DBCacheConfig(residual_diff_threshold=threshold)
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options=options, loads_weights=False)
    return trial(cache, engine=engine)


class Told:
    """A node in a thread, and what it says."""

    def __init__(self) -> None:
        self.said: queue.Queue[bytes] = queue.Queue()
        self.node = NodeAtWork(BEGIN, self.said.put, name="n1", about={"placed_by": {"ray": "2"}})
        self.thread = threading.Thread(target=self.node.work, daemon=True)
        self.thread.start()

    def next(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        head, files = wire.unpacked(self.said.get(timeout=60))
        return head, {name: bytes(data) for name, data in files.items()}

    def until(self, kind: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        while True:
            head, files = self.next()
            if head["say"] == kind:
                return head, files

    def run(self, task: Task, files: dict[str, bytes] | None = None) -> None:
        references = {s.reference: s.reference.name for s in task.settings if s.reference is not None}
        self.node.hear(wire.packed({"say": "run", "task": wire.task_out(task, references)}, files))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Told]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ENGINES), os.environ.get("PYTHONPATH")])))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    node = Told()
    yield node
    node.node.hear(wire.packed({"say": "leave"}))
    node.thread.join(30)
    assert not node.thread.is_alive()


def task_of(*settings: Setting) -> Task:
    return Task(settings, MEASURE, "p")


def test_it_measures_judges_by_the_images_that_came_and_says_where_it_is(told: Told, tmp_path: Path) -> None:
    hello, _ = told.next()
    assert (hello["say"], hello["wire"], hello["node"]) == ("hello", wire.VERSION, "n1")
    assert hello["environment"]["placed_by"] == {"ray": "2"}

    reference = Setting(synthetic(), tmp_path / "reference", is_reference=True)
    told.run(task_of(reference))
    done, files = told.until("done")
    assert done["task"] == wire.task_out(task_of(reference), {}), "of what it is, should nobody remember"
    (result,) = wire.results_in(done["results"])
    assert isinstance(result, Completed) and done["environment"]["node"] == "n1"
    images = {name.removeprefix("0/"): data for name, data in files.items()}
    assert {"made_by.json", "latents.safetensors"} < set(images)

    judged = Setting(synthetic(0.2), tmp_path / "artifacts", tmp_path / "reference")
    told.run(task_of(judged), {f"reference/{name}": data for name, data in images.items()})
    (result,) = wire.results_in(told.until("done")[0]["results"])
    assert isinstance(result, Completed)
    quality = result.measurement.quality
    assert quality is not None and all(0 < each.ssim < 1 for each in quality)

    told.run(task_of(replace(judged, trial=synthetic(0.1))))  # they are kept
    (result,) = wire.results_in(told.until("done")[0]["results"])
    assert isinstance(result, Completed) and result.measurement.quality is not None


def test_a_trial_that_fails_says_why_and_the_node_goes_on(told: Told, tmp_path: Path) -> None:
    told.run(task_of(Setting(synthetic(0.3, crash_on=0.3), tmp_path / "x")))
    done, files = told.until("done")
    (result,) = wire.results_in(done["results"])
    assert isinstance(result, Failed) and result.reason.code == "worker_died" and not files
    assert "about to crash" in done["log"]
    told.run(task_of(Setting(synthetic(0.2), tmp_path / "x")))
    assert isinstance(wire.results_in(told.until("done")[0]["results"])[0], Completed)


def test_a_stop_ends_the_task_and_not_the_node(told: Told, tmp_path: Path) -> None:
    slow = replace(
        task_of(Setting(synthetic(round_s=0.05), tmp_path / "x")),
        measure=replace(MEASURE, min_rounds=2000, max_rounds=2000),
    )
    told.run(slow)
    told.until("event")
    told.node.hear(wire.packed({"say": "stop"}))
    assert wire.results_in(told.until("done")[0]["results"]) == (Stopped(),)
    told.run(task_of(Setting(synthetic(0.2), tmp_path / "x")))
    assert isinstance(wire.results_in(told.until("done")[0]["results"])[0], Completed)


def test_events_come_seldom(told: Told, tmp_path: Path) -> None:
    """A hundred rounds of a millisecond are said once or twice, not a hundred times."""
    many = replace(
        task_of(Setting(synthetic(round_s=0.001), tmp_path / "x")),
        measure=replace(MEASURE, min_rounds=100, max_rounds=100),
    )
    told.run(many)
    rounds = 0
    while True:
        head, _ = told.next()
        rounds += head["say"] == "event" and head["event"]["event"] == "round"
        if head["say"] == "done":
            break
    assert rounds < 50


def test_its_folder_is_gone_when_it_left_and_that_of_one_that_was_killed_goes_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"{SCRATCH}of-one-that-was-killed"
    left.mkdir()
    os.utime(left, (0, 0))
    node = Told()
    node.until("hello")
    (own,) = tmp_path.glob(f"{SCRATCH}*")
    assert own != left
    node.node.hear(wire.packed({"say": "leave"}))
    node.until("bye")
    assert not list(tmp_path.glob(f"{SCRATCH}*"))


def test_what_it_cannot_begin_with_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said: queue.Queue[bytes] = queue.Queue()
    NodeAtWork(wire.packed({"say": "begin"}), said.put).work()
    assert wire.unpacked(said.get(timeout=10))[0]["say"] == "broken"
