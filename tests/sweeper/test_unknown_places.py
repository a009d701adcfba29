"""Where nobody knows before what trials run on, as on Slurm: what was measured holds for the hardware that is named and
for this software, and what landed on other hardware is not kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import GRID, measurement, trial
from hardware_profiles import profile
from one_at_a_time import OneAtATime
from plans import plan_of

from zbench.config import ComputeConfig, HardwareConfig
from zbench.environment import capture, device_of, software_differences
from zbench.errors import ConfigError
from zbench.executors import Completed, Done, OnEvent, Setting, Task, TaskResult
from zbench.hardware.detect import ANY_GPU
from zbench.search.grid import GridSearch
from zbench.space import arrange
from zbench.store import Store, read_records
from zbench.sweeper import sweep

HERE = capture().to_dict()
H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
NAMED = profile("h100")
ANY = replace(NAMED, name=ANY_GPU, nvml_name=".")
TRIAL = trial(compute=ComputeConfig(device="cuda"))


def node_with(gpu: str | None, **other: Any) -> dict[str, Any]:
    """The environment of a worker there."""
    gpus = [] if gpu is None else [{"name": gpu, "memory_bytes": None, "driver": "570", "power_limit_w": None}]
    return {**HERE, "cpu": "another processor", "cores": 7, "driver": "570", "devices": gpus, **other}


class Elsewhere(OneAtATime):
    """Measures on a machine that nobody knows before."""

    def __init__(self, there: dict[str, Any]) -> None:
        super().__init__()
        self.environments, self._there = [], there
        self.ran: list[str] = []

    def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
        self.ran.append(setting.trial.label)
        return Completed(measurement(setting.trial))

    def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
        task, self._task = self._task, None
        assert task is not None
        return Done(task, tuple(self.run_one(s, task, on_event) for s in task.settings), self._there)


class Told:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *told: self.notes.append(told[0]) if name == "note" else None


def swept(folder: Path, there: dict[str, Any], hardware: HardwareConfig = NAMED) -> tuple[list[str], list[str]]:
    """Labels of what is measured, and what is said."""
    space, told, executor = arrange([TRIAL]), Told(), Elsewhere(there)
    plan = plan_of(space, folder, profiles={TRIAL.trial_id: hardware})
    with Store(plan.run_folder, told.note) as store:
        sweep.Sweep(plan, store, executor, GridSearch(space, GRID), told, lambda: False).run()
    return executor.ran, told.notes


def test_what_was_measured_on_the_hardware_that_is_named_holds(tmp_path: Path) -> None:
    assert swept(tmp_path, node_with(H100)) == ([TRIAL.label], [])
    assert swept(tmp_path, node_with(H100)) == ([], [])


def test_another_device_is_another_measurement(tmp_path: Path) -> None:
    swept(tmp_path, node_with(H100))
    ran, notes = swept(tmp_path, node_with(A100), profile("a100"))
    assert ran == [TRIAL.label]
    assert notes == [f"{TRIAL.label} is measured again: device {H100} → hardware=a100"]


def test_other_software_is_another_measurement(tmp_path: Path) -> None:
    swept(tmp_path, node_with(H100, versions={**HERE["versions"], "torch": "1.0"}))
    ran, notes = swept(tmp_path, node_with(H100))
    assert ran == [TRIAL.label] and "torch 1.0 → " in notes[0]


def test_a_node_without_git_says_nothing_of_the_checkout() -> None:
    without = {**HERE, "git_revision": None, "git_changes": None}
    assert software_differences(without, {**HERE, "git_revision": "f" * 40, "git_changes": "abc"}) == []
    with_it = {**HERE, "git_revision": "e" * 40, "git_changes": None}
    assert len(software_differences(with_it, {**with_it, "git_changes": "abc"})) == 1


def test_a_trial_that_landed_on_other_hardware_is_not_kept_and_the_sweep_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"hardware=h100: .* was measured on {A100}, which is not kept; .*gpu_type"):
        swept(tmp_path, node_with(A100))
    assert swept(tmp_path, node_with(H100))[0] == [TRIAL.label], "there is no record of it"


def test_a_trial_of_any_gpu_is_kept_wherever_it_landed_and_its_record_says_where(tmp_path: Path) -> None:
    assert swept(tmp_path, node_with(A100), ANY)[0] == [TRIAL.label]
    assert swept(tmp_path, node_with(H100), ANY) == ([], []), "the same command asks for no other kind"
    (record,) = read_records(tmp_path / "s" / "records.jsonl")
    assert device_of(record.environment) == A100
    assert swept(tmp_path, node_with(H100))[0] == [TRIAL.label], "one that names its kind does"


def test_a_worker_that_names_no_device_is_taken_at_its_word(tmp_path: Path) -> None:
    swept(tmp_path, node_with(None))
    assert swept(tmp_path, node_with(None))[0] == []
