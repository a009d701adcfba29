"""Results that nobody was there any more to hear: they are taken for just what they were measured as, and once."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, measurement
from fake_cluster import FakeCluster, on_a_gpu, pool_over, task_of

from zbench.executors import Setting, Task
from zbench.executors.remote import freight, wire
from zbench.executors.remote.unheard import UnheardResults
from zbench.quality.artifacts import MADE_BY

IMAGE = {"0/en-0.png": b"image"}


def ended(task: Task, files: dict[str, bytes] = IMAGE, **other: Any) -> bytes:
    """What a node says that measured all of a task."""
    names = {s.reference: freight.content_key(s.reference) for s in task.settings if s.reference is not None}
    told = {
        "say": "done",
        "task": wire.task_out(task, names),
        "results": [{"measurement": asdict(measurement(setting.trial))} for setting in task.settings],
        "environment": ENVIRONMENT,
        "log": "",
    }
    return wire.packed({**told, **other}, files)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Of two trials, which are judged."""
    made = task_of(tmp_path, on_a_gpu(0.1), on_a_gpu(0.2))
    reference = tmp_path / "reference"
    reference.mkdir()
    (reference / MADE_BY).write_text("{}")
    return replace(made, settings=tuple(replace(each, reference=reference) for each in made.settings))


def measured_of(left: UnheardResults, setting: Setting, task: Task) -> bool:
    return left.take(setting, task.measure) is not None


def test_a_trial_has_its_result_and_its_images_once(task: Task) -> None:
    left = UnheardResults([ended(task, {"0/en-0.png": b"first", "1/en-0.png": b"second"})])
    for setting, image in zip(task.settings, (b"first", b"second"), strict=True):
        found = left.take(setting, task.measure)
        assert found is not None and found.environment == ENVIRONMENT
        assert found.measurement == measurement(setting.trial)
        assert [path.read_bytes() for path in setting.artifacts.iterdir()] == [image]
        assert not measured_of(left, setting, task)


def test_what_would_be_measured_in_another_way_has_none(task: Task) -> None:
    setting, left = task.settings[0], UnheardResults([ended(task)])
    changes: list[dict[str, Any]] = [{"trial": on_a_gpu(0.3)}, {"reference": None}, {"role": "baseline"}]
    assert not any(measured_of(left, replace(setting, **change), task) for change in changes)
    assert left.take(setting, replace(task.measure, min_rounds=task.measure.min_rounds + 1)) is None
    assert not setting.artifacts.exists() and measured_of(left, setting, task)


def test_what_was_judged_by_other_images_is_measured_again(task: Task) -> None:
    left, (setting, _) = UnheardResults([ended(task)]), task.settings
    assert setting.reference is not None
    (setting.reference / MADE_BY).write_text('{"of": "other weights"}')
    assert not measured_of(left, setting, task)


@pytest.mark.parametrize(
    "message",
    [
        b"no message",
        wire.packed({"say": "hello"}),
        wire.packed({"say": "done", "results": [], "environment": None, "log": ""}),
    ],
    ids=["no message", "another one", "of an older zbench"],
)
def test_what_cannot_be_read_is_left_out(task: Task, message: bytes) -> None:
    assert measured_of(UnheardResults([message, ended(task)]), task.settings[0], task)


@pytest.mark.parametrize(
    "other",
    [
        {"results": [{"reason": {"code": "timeout", "message": "slow"}}, {"unmeasured": "stopped"}]},
        {"environment": {"devices": "a GPU"}},
        {"results": [{"measurement": {}}, {"measurement": {}}]},
    ],
    ids=["not measured", "no environment", "no measurement"],
)
def test_what_no_record_could_hold_is_no_result(task: Task, other: dict[str, Any]) -> None:
    left = UnheardResults([ended(task, **other)])
    assert not any(measured_of(left, setting, task) for setting in task.settings)


def test_a_file_that_no_trial_leaves_is_written_nowhere(task: Task, tmp_path: Path) -> None:
    left = UnheardResults([ended(task, {"0/../../evil.png": b"x"})])
    assert not measured_of(left, task.settings[0], task) and not list(tmp_path.rglob("*evil*"))


def test_a_cluster_that_keeps_no_words_has_none(tmp_path: Path) -> None:
    made = task_of(tmp_path, on_a_gpu(0.1))
    assert pool_over(FakeCluster(), tmp_path).recovered(made.settings[0], made.measure) is None
