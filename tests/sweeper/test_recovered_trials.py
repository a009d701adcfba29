"""What was measured for a command that was killed is in the journal first, and holds there as every record does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import GRID, measurement, trial
from one_at_a_time import OneAtATime
from plans import plan_of

from zbench.config import ComputeConfig, HardwareConfig, MeasureConfig
from zbench.environment import capture
from zbench.executors import Completed, OnEvent, Recovered, Setting, Task, TaskResult
from zbench.record import Record
from zbench.search.grid import GridSearch
from zbench.space import Space, arrange
from zbench.store import Store, read_records
from zbench.sweeper import sweep

HERE = capture().to_dict()
BEFORE = {**HERE, "versions": {**HERE["versions"], "torch": "1.0"}}
TRIAL = trial(compute=ComputeConfig(device="cpu"))
LEFT_S, NOW_S = 1.0, 2.0


class AfterAKill(OneAtATime):
    """Knows a result of a trial that it was not asked to measure."""

    def __init__(self, environment: dict[str, Any]) -> None:
        super().__init__()
        self._environment = environment
        self.ran: list[str] = []
        self.forgot = 0

    def recovered(self, setting: Setting, measure: MeasureConfig) -> Recovered | None:
        return Recovered(measurement(setting.trial, latency_s=LEFT_S), self._environment)

    def forget(self) -> None:
        self.forgot += 1

    def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
        self.ran.append(setting.trial.label)
        return Completed(measurement(setting.trial, latency_s=NOW_S))


class Notes:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *told: self.told.append(told[0]) if name == "note" else None


def swept(folder: Path, environment: dict[str, Any] = HERE, **settings: Any) -> tuple[list[str], list[str]]:
    """Labels of what is measured, and what is said."""
    executor = AfterAKill(environment)
    return executor.ran, run_by(executor, folder, arrange([TRIAL]), **settings)


def run_by(
    executor: AfterAKill,
    folder: Path,
    space: Space,
    hardware: HardwareConfig | None = None,
    *,
    stops: bool = False,
    **settings: Any,
) -> list[str]:
    """What is said in a sweep."""
    profiles = {} if hardware is None else {placed.trial.trial_id: hardware for placed in space.placed}
    notes, plan = Notes(), plan_of(space, folder, sweep=settings, profiles=profiles)
    with Store(plan.run_folder, notes.told.append) as store:
        sweep.Sweep(plan, store, executor, GridSearch(space, GRID), notes, lambda: stops).run()
    return notes.told


def journal(folder: Path) -> list[Record]:
    return read_records(folder / "s" / "records.jsonl")


def latencies_s(folder: Path) -> list[float]:
    """Of each record, about."""
    return [round(r.measurement.requests[0].latency_s) for r in journal(folder) if r.measurement is not None]


def test_it_is_not_measured_again_and_is_in_the_journal_once(tmp_path: Path) -> None:
    ran, notes = swept(tmp_path)
    assert (ran, len(notes)) == ([], 1) and f"{TRIAL.label} had been measured" in notes[0]
    (record,) = journal(tmp_path)
    assert record.state == "COMPLETE" and record.environment == HERE and record.is_reference
    assert swept(tmp_path) == ([], []) and len(journal(tmp_path)) == 1


def test_of_other_software_it_is_written_down_once_and_measured_again(tmp_path: Path) -> None:
    ran, notes = swept(tmp_path, BEFORE)
    assert ran == [TRIAL.label] and ["torch 1.0 → " in note for note in notes] == [False, True]
    assert latencies_s(tmp_path) == [LEFT_S, NOW_S]


def test_what_had_been_written_down_before_the_kill_is_not_doubled(tmp_path: Path) -> None:
    """Whether it holds or not: the command was killed between its record and the end of its files."""
    swept(tmp_path / "other")
    with Store(tmp_path / "s", lambda _: None) as store:
        store.append(replace(journal(tmp_path / "other")[0], environment=BEFORE))
    assert swept(tmp_path, BEFORE)[0] == [TRIAL.label]
    assert latencies_s(tmp_path) == [LEFT_S, NOW_S]


def test_a_fresh_sweep_has_nothing_of_it(tmp_path: Path) -> None:
    assert swept(tmp_path, fresh=True)[0] == [TRIAL.label]
    assert latencies_s(tmp_path) == [NOW_S]


def test_of_another_gpu_than_its_hardware_names_it_is_not_kept(tmp_path: Path) -> None:
    on_a_gpu = trial(compute=ComputeConfig(device="cuda"))
    gpu = {"name": "NVIDIA A100-SXM4-80GB", "memory_bytes": None, "driver": "570", "power_limit_w": None}
    executor = AfterAKill({**HERE, "devices": [gpu]})
    run_by(executor, tmp_path, arrange([on_a_gpu]), HardwareConfig(name="h100", nvml_name="H100"))
    assert executor.ran == [on_a_gpu.label] and latencies_s(tmp_path) == [NOW_S]


@pytest.mark.parametrize(
    ("stops", "fresh", "forgot"), [(False, False, 1), (True, False, 0), (False, True, 2)], ids=["end", "stop", "fresh"]
)
def test_what_is_left_is_forgotten_at_the_end_and_not_where_the_sweep_is_stopped(
    tmp_path: Path, stops: bool, fresh: bool, forgot: int
) -> None:
    """It is there for the next command then; a fresh sweep wants none of it, however that ends."""
    executor = AfterAKill(HERE)
    run_by(executor, tmp_path, arrange([TRIAL]), stops=stops, fresh=fresh)
    assert executor.forgot == forgot
