"""What was measured for a command that was killed is in the journal first, and holds there as every record does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from factories import GRID, measurement, trial
from one_at_a_time import OneAtATime
from plans import plan_of

from zbench.config import ComputeConfig, MeasureConfig
from zbench.environment import capture
from zbench.executors import Completed, OnEvent, Recovered, Setting, Task, TaskResult
from zbench.record import Record
from zbench.search.grid import GridSearch
from zbench.space import arrange
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

    def recovered(self, setting: Setting, measure: MeasureConfig) -> Recovered | None:
        return Recovered(measurement(setting.trial, latency_s=LEFT_S), self._environment)

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
    space, notes, executor = arrange([TRIAL]), Notes(), AfterAKill(environment)
    plan = plan_of(space, folder, sweep=settings)
    with Store(plan.run_folder, notes.told.append) as store:
        sweep.Sweep(plan, store, executor, GridSearch(space, GRID), notes, lambda: False).run()
    return executor.ran, notes.told


def journal(folder: Path) -> list[Record]:
    return read_records(folder / "s" / "records.jsonl")


def latencies_s(folder: Path) -> list[float]:
    """Of each record, about."""
    return [round(r.measurement.requests[0].latency_s) for r in journal(folder) if r.measurement is not None]


def test_it_is_not_measured_again_and_is_in_the_journal_once(tmp_path: Path) -> None:
    assert swept(tmp_path) == ([], [])
    (record,) = journal(tmp_path)
    assert record.state == "COMPLETE" and record.environment == HERE and record.is_reference
    assert swept(tmp_path) == ([], []) and len(journal(tmp_path)) == 1


def test_of_other_software_it_is_written_down_once_and_measured_again(tmp_path: Path) -> None:
    ran, notes = swept(tmp_path, BEFORE)
    assert ran == [TRIAL.label] and ["torch 1.0 → " in note for note in notes] == [True]
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
