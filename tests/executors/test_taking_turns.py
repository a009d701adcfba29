"""Trials wait for whoever measures on their device. Real workers over the synthetic engine, devices named only."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import trial
from images_server import images_server

from zbench.config import (
    ComputeConfig,
    DBCacheConfig,
    EngineConfig,
    ExecutorConfig,
    MeasureConfig,
    ParallelConfig,
    ServedEngineConfig,
)
from zbench.executors import Completed, Done, Setting, Stopped, Task
from zbench.executors.local import LocalExecutor
from zbench.executors.places import places_of
from zbench.hardware.nvml import Device
from zbench.hardware.turns import FOLDER_VARIABLE, TurnOnDevices
from zbench.trial import Trial

ENGINES = Path(__file__).parent.parent / "engines"
MEASURE = MeasureConfig(max_warmup_rounds=1, min_rounds=2, max_rounds=2, timeout_s=60.0)
CARDS = [Device(index, "NVIDIA H100", f"GPU-{index}{index}", 80 * 2**30, "580.1") for index in range(2)]
Events = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ENGINES), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def held(*devices: str) -> TurnOnDevices:
    turn = TurnOnDevices(devices, "runs/other")
    turn.begin()
    assert turn.is_ours
    return turn


def local(folder: Path, concurrent: int = 1, share: bool = False) -> LocalExecutor:
    config = ExecutorConfig(name="local", target="x:Y", concurrent_trials=concurrent, share_device=share)
    return LocalExecutor(config, folder / "logs", devices=lambda: CARDS)


@pytest.fixture
def executor(folder: Path) -> Iterator[LocalExecutor]:
    with local(folder) as executor:
        yield executor


def synthetic(device: str = "cpu", threshold: float = 0.1) -> Trial:
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine")
    return trial(DBCacheConfig(residual_diff_threshold=threshold), engine=engine, compute=ComputeConfig(device=device))


def task(folder: Path, of: Trial, measure: MeasureConfig = MEASURE) -> Task:
    return Task((Setting(of, folder / of.trial_id),), measure)


def turn_of(done: Done) -> Any:
    (result,) = done.results
    assert isinstance(result, Completed), result
    return result.measurement.window.turn


def test_a_trial_waits_for_its_turn_says_for_whom_and_its_record_says_how_long(
    executor: LocalExecutor, folder: Path
) -> None:
    other, events = held("cpu"), Events()

    def hear(of: Task, event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "waiting":
            other.end()

    executor.submit(task(folder, synthetic()))
    turn = turn_of(executor.next_done(hear, lambda: False))
    waiting, come, *rest = events
    assert waiting["event"] == "waiting" and f"(runs/other, pid {os.getpid()}, " in waiting["text"]
    assert come == {"event": "waiting", "text": "its turn has come"} and rest[0]["event"] == "loading"
    assert (turn.devices, turn.kept) == (["cpu"], "alone") and turn.waited_s > 0
    (log,) = (folder / "logs").iterdir()
    first, second, *_ = log.read_text().splitlines()
    assert (first, second) == (waiting["text"], "its turn has come")
    assert held("cpu").is_ours, "it let others have the device when it was done"


def test_waiting_for_a_turn_is_no_part_of_the_time_out(executor: LocalExecutor, folder: Path) -> None:
    other = held("cpu")
    executor.submit(task(folder, synthetic(), replace(MEASURE, timeout_s=4.0)))
    looks = iter(range(120))  # of 0.05 s: longer than the time-out

    def asked() -> bool:
        if next(looks, None) is None:
            other.end()
        return False

    assert turn_of(executor.next_done(lambda of, event: None, asked)).waited_s > 4.0


def test_a_stop_is_obeyed_while_it_waits(executor: LocalExecutor, folder: Path) -> None:
    other, events = held("cpu"), Events()
    executor.submit(task(folder, synthetic()))
    done = executor.next_done(lambda of, event: events.append(event), lambda: bool(events))
    assert done.results == (Stopped(),)
    other.end()
    executor.submit(task(folder, synthetic()))
    assert turn_of(executor.next_done(lambda of, event: None, lambda: False)).kept == "alone"


def test_a_worker_waits_for_its_own_gpu_alone(folder: Path) -> None:
    other = held("GPU-00")
    with local(folder, concurrent=2) as executor:
        first, second = synthetic("cuda"), synthetic("cuda", 0.2)
        executor.submit(task(folder, first))
        executor.submit(task(folder, second))
        done = executor.next_done(lambda of, event: None, lambda: False)
        assert turn_of(done).devices == ["GPU-11"] and done.beside == (), "the other one had not begun"
        other.end()
        assert turn_of(executor.next_done(lambda of, event: None, lambda: False)).devices == ["GPU-00"]


def test_who_shares_the_device_does_not_wait(folder: Path) -> None:
    other, events = held("cpu"), Events()
    with local(folder, share=True) as executor:
        executor.submit(task(folder, synthetic()))
        turn = turn_of(executor.next_done(lambda of, event: events.append(event), lambda: False))
    assert turn.kept == "shared" and "waiting" not in {event["event"] for event in events}
    assert len(other.end().beside) == 1


def test_without_a_folder_for_turns_it_measures_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "none"))
    events = Events()
    with local(folder) as executor:
        executor.submit(task(folder, synthetic()))
        assert turn_of(executor.next_done(lambda of, event: events.append(event), lambda: False)).kept == "unknown"
    assert events[0]["text"].startswith("takes no turns with other measurements: ")


def test_a_trial_takes_the_devices_that_it_runs_on() -> None:
    on_gpus = trial(compute=ComputeConfig(device="cuda"), parallel=ParallelConfig(tp_size=2))
    assert places_of(trial(), CARDS) == ("cpu",)
    assert places_of(on_gpus, CARDS) == ("GPU-00", "GPU-11")
    assert places_of(trial(compute=ComputeConfig(device="cuda")), CARDS[1:]) == ("GPU-11",)


def served(url: str) -> Trial:
    return trial(engine=ServedEngineConfig(name="openai_images", target="x:Y", base_url=url))


def test_of_a_server_elsewhere_only_its_address_is_taken_and_of_one_here_the_cpu_too() -> None:
    assert places_of(served("http://203.0.113.1:30000"), CARDS) == ("server-203.0.113.1-30000",)
    with images_server(lambda call: None) as server:
        address, device = places_of(served(server.url), CARDS)
    assert address.startswith("server-127.0.0.1-") and device == "cpu"
