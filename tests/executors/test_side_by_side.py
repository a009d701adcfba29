"""Trials side by side, each worker with a device of its own. The devices are named only; the engine is synthetic."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import logging_under
from factories import trial
from images_server import Call, images_server, picture

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    EngineConfig,
    ExecutorConfig,
    MeasureConfig,
    ParallelConfig,
    ServedEngineConfig,
)
from zbench.errors import ConfigError
from zbench.executors import Completed, Disrupted, Done, Failed, Setting, Task
from zbench.executors.local import LocalExecutor
from zbench.hardware.nvml import Device
from zbench.trial import Trial

ENGINES = Path(__file__).parent.parent / "engines"
MEASURE = MeasureConfig(max_warmup_rounds=1, min_rounds=2, max_rounds=2, timeout_s=60.0)
CARDS = [Device(index, "NVIDIA H100", f"GPU-{index}{index}", 80 * 2**30, "580.1") for index in range(2)]


@pytest.fixture(autouse=True)
def synthetic_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ENGINES), os.environ.get("PYTHONPATH")])))


def local(folder: Path, concurrent: int, cards: int = 2) -> LocalExecutor:
    config = ExecutorConfig(name="local", target="x:Y", concurrent_trials=concurrent)
    return LocalExecutor(config, folder / "logs", devices=lambda: CARDS[:cards])


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    with local(tmp_path, 2) as executor:
        yield executor


def synthetic(threshold: float | None = None, device: str = "cuda", **options: Any) -> Trial:
    cache = CacheConfig() if threshold is None else DBCacheConfig(residual_diff_threshold=threshold)
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options=options)
    return trial(cache, engine=engine, compute=ComputeConfig(device=device))


def task(folder: Path, *trials: Trial, process: str = "") -> Task:
    return Task(tuple(Setting(of, folder / of.trial_id) for of in trials), MEASURE, process)


def done(executor: LocalExecutor) -> Done:
    return executor.next_done(lambda task, event: None, lambda: False)


def devices_shown(folder: Path) -> list[str | None]:
    """To each worker of the executor that logs under `folder`."""
    return [worker.environ().get("CUDA_VISIBLE_DEVICES") for worker in logging_under(folder / "logs")]


def labels(*ended: Done) -> set[str]:
    return {setting.trial.label for each in ended for setting in each.task.settings}


def test_two_trials_run_at_once_each_on_its_own_device_and_know_of_each_other(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    first, second = synthetic(0.1, round_s=0.3), synthetic(0.2, round_s=0.3)
    assert executor.capacity == 2
    executor.submit(task(tmp_path, first))
    executor.submit(task(tmp_path, second))
    one = done(executor)
    seen = set(devices_shown(tmp_path))
    other = done(executor)
    assert seen == {"GPU-00", "GPU-11"}
    ended = {each.task.settings[0].trial.trial_id: each for each in (one, other)}
    assert ended[first.trial_id].beside == (second.trial_id,)
    assert ended[second.trial_id].beside == (first.trial_id,)
    assert all(isinstance(result, Completed) for each in (one, other) for result in each.results)


def test_a_trial_goes_to_the_worker_that_has_its_pipeline(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.submit(task(tmp_path, synthetic(0.1, round_s=0.2), process="a"))
    executor.submit(task(tmp_path, synthetic(0.1, round_s=0.3), process="b"))
    done(executor), done(executor)
    for process, round_s in (("b", 0.3), ("a", 0.2)):
        executor.submit(task(tmp_path, synthetic(0.2, round_s=round_s), process=process))
        (result,) = done(executor).results
        assert isinstance(result, Completed) and result.measurement.reasons["cold.load_s"] == "resident"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_trials_on_the_cpu_share_its_cores_and_run_alone(device: str, executor: LocalExecutor, tmp_path: Path) -> None:
    executor.submit(task(tmp_path, synthetic(0.1, device="cpu", round_s=0.1)))
    executor.submit(task(tmp_path, synthetic(0.2, device=device, round_s=0.1)))
    assert [each.beside for each in (done(executor), done(executor))] == [(), ()]


def test_one_that_dies_leaves_its_neighbour_alone(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.submit(task(tmp_path, synthetic(0.1, kill_on=0.1)))
    executor.submit(task(tmp_path, synthetic(0.2, round_s=0.5)))
    sick, healthy = done(executor), done(executor)
    assert isinstance(sick.results[0], Failed) and isinstance(healthy.results[0], Completed)


@pytest.mark.parametrize(("wanted", "cards"), [(3, 2), (2, 1), (2, 0)])
def test_more_trials_than_devices_is_one_clear_error(wanted: int, cards: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"executor\.concurrent_trials={wanted}: .*there are {cards} .*at most"):
        local(tmp_path, wanted, cards)


def test_one_at_a_time_has_the_whole_machine(tmp_path: Path) -> None:
    with local(tmp_path, 1) as executor:
        assert executor.capacity == 1
        assert [len(each["devices"]) for each in executor.environments] == [2]
    with local(tmp_path, 2) as executor:
        assert [len(each["devices"]) for each in executor.environments] == [1, 1]


def test_the_environment_is_what_the_worker_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker elsewhere has another processor than its parent, so its own word counts."""
    monkeypatch.setattr("zbench.environment.cpu_model", lambda: "the parent's processor")
    with LocalExecutor(ExecutorConfig(), tmp_path / "logs", devices=lambda: []) as executor:
        executor.submit(task(tmp_path, synthetic(device="cpu")))
        environment = done(executor).environment
        assert executor.environments[0]["cpu"] == "the parent's processor"
    assert environment is not None and environment["cpu"] not in ("", "the parent's processor")
    assert environment["versions"]["torch"] is not None and "devices" in environment


def test_a_trial_of_several_devices_sees_them_all(executor: LocalExecutor, tmp_path: Path) -> None:
    """And whoever held a device before is let go."""
    executor.submit(task(tmp_path, synthetic(0.1)))
    executor.submit(task(tmp_path, synthetic(0.2, round_s=0.2)))
    done(executor), done(executor)
    sharded = replace(synthetic(0.3, round_s=0.2), parallel=ParallelConfig(tp_size=2))
    executor.submit(task(tmp_path, sharded))
    seen: list[list[str | None]] = []

    def look(_: Task, event: dict[str, Any]) -> None:
        if event["event"] == "round":
            seen.append(devices_shown(tmp_path))

    assert executor.next_done(look, lambda: False).beside == ()
    assert seen[0] == [os.environ.get("CUDA_VISIBLE_DEVICES")]


def test_a_trial_of_a_server_that_is_there_has_it_to_itself(executor: LocalExecutor, tmp_path: Path) -> None:
    """Two at once would measure each other. A worker that runs alone is shown every device."""
    seen: list[list[str | None]] = []

    def look(_: Task, event: dict[str, Any]) -> None:
        if event["event"] == "round":
            seen.append(devices_shown(tmp_path))

    def paints(call: Call) -> None:
        call.images(picture(size=(256, 256)))

    with images_server(paints) as server:
        target = "zbench.engines.openai_images:ImagesEngine"
        engine = ServedEngineConfig(name="openai_images", target=target, base_url=server.url)
        executor.submit(task(tmp_path, trial(engine=engine, compute=ComputeConfig(device="cuda"))))
        [result] = executor.next_done(look, lambda: False).results
    assert isinstance(result, Completed) and seen[0] == [os.environ.get("CUDA_VISIBLE_DEVICES")]


def test_one_that_hangs_is_ended_in_time_whatever_its_neighbour_says(executor: LocalExecutor, tmp_path: Path) -> None:
    hangs = Setting(synthetic(0.1, hang_on=0.1), tmp_path / "hangs")
    executor.submit(Task((hangs,), replace(MEASURE, timeout_s=3.0)))
    talks = Setting(synthetic(0.2, round_s=0.02), tmp_path / "talks")
    executor.submit(Task((talks,), replace(MEASURE, min_rounds=1000, max_rounds=1000)))
    (result,) = done(executor).results
    assert isinstance(result, Failed) and result.reason.code == "timeout"
    executor.abort()


# Several trials in one task


@pytest.mark.parametrize("misdeed", ["kill_on", "hang_on"])
def test_one_that_dies_or_hangs_in_its_turn_has_the_blame_alone(
    misdeed: str, executor: LocalExecutor, tmp_path: Path
) -> None:
    trials = [synthetic(threshold, **{misdeed: 0.2}) for threshold in (None, 0.2, 0.3)]
    made = task(tmp_path, *trials)
    executor.submit(replace(made, measure=replace(MEASURE, timeout_s=2.0)))
    assert [type(result) for result in done(executor).results] == [Disrupted, Failed, Disrupted]


def test_trials_of_a_task_take_turns_in_one_window(executor: LocalExecutor, tmp_path: Path) -> None:
    base, other = synthetic(), synthetic(0.2)
    settings = (
        Setting(base, tmp_path / "base", is_reference=True, role="baseline"),
        Setting(other, tmp_path / "other", reference=tmp_path / "base"),
    )
    executor.submit(Task(settings, replace(MEASURE, min_rounds=4, max_rounds=4)))
    first, second = done(executor).results
    assert isinstance(first, Completed) and isinstance(second, Completed)
    window = second.measurement.window
    turns = [(r.index, r.role, r.prompt_id) for r in window.requests]
    images = ["en-circle", "zh-square"] * 2
    order = ["baseline", "trial", "trial", "baseline"] * 2
    assert turns == [(i, role, images[i // 2]) for i, role in enumerate(order)]
    assert [r.trial_id for r in second.measurement.requests] == [other.trial_id] * 4
    assert [r.index for r in first.measurement.window.requests] == [0, 3, 4, 7], "of others it keeps the baseline's"
    assert second.measurement.quality is not None and first.measurement.quality is None
    assert (first.measurement.cold.load_s is None, second.measurement.cold.load_s is None) == (False, True)
    for made in (first.measurement, second.measurement):
        assert (made.memory.host_peak_rss_bytes or 0) > 2**20, "of its own turns"
    assert (first.measurement.window.left_out, window.left_out) == (4, 0)
    own = first.measurement.requests
    assert first.measurement.window.wall_s_of(own) == sum(r.done_s - r.due_s for r in own)
    assert window.wall_s is not None
    assert window.wall_s_of(window.requests) == pytest.approx(window.wall_s - window.requests[0].due_s)


def test_one_that_fails_has_the_blame_and_the_others_are_to_be_tried_again(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    sick = synthetic(0.1, raise_on=0.1)
    executor.submit(task(tmp_path, synthetic(raise_on=0.1), sick, synthetic(0.3, raise_on=0.1)))
    results = done(executor).results
    assert [type(result) for result in results] == [Disrupted, Failed, Disrupted]
    assert isinstance(results[1], Failed) and "the pipeline broke" in results[1].reason.message
