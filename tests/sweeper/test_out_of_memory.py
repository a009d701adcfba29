"""A trial that runs out of device memory is data, and the way out of it can be tried at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from factories import TURBO, measurement, trial

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    Config,
    ExecutorConfig,
    HardwareConfig,
    MeasureConfig,
    OffloadConfig,
    SCMConfig,
    SweepConfig,
)
from zbench.environment import capture
from zbench.executors import Completed, Failed, Task, TaskResult
from zbench.record import Reason, Record
from zbench.space import arrange
from zbench.store import Store
from zbench.sweeper import sweep
from zbench.sweeper.plan import Plan
from zbench.trial import Trial

GPU = ComputeConfig(device="cuda")
FORCED = SCMConfig(scm_policy="static")
MEMORY = {"allocated": 15 * 2**30, "free": 2**20, "total": 80 * 2**30}


class SmallCard:
    """An executor on which only some offload modes fit."""

    def __init__(self, *fitting: str) -> None:
        self.fitting = fitting
        self.ran: list[Task] = []

    def run(
        self, task: Task, on_event: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool]
    ) -> TaskResult:
        self.ran.append(task)
        if task.trial.offload.mode in self.fitting:
            return Completed(measurement(task.trial))
        return Failed(Reason("out_of_memory", "CUDA out of memory", stage="timed rounds, decode", memory=MEMORY))

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Quiet:
    """A listener that keeps what was added."""

    def __init__(self) -> None:
        self.added_trials: list[Trial] = []

    def note(self, text: str) -> None: ...

    def reused(self, placed: Any, record: Record) -> None: ...

    def started(self, placed: Any) -> None: ...

    def event(self, placed: Any, event: dict[str, Any]) -> None: ...

    def finished(self, placed: Any, record: Record) -> None: ...

    def added(self, placed: Any, trial: Trial) -> None:
        self.added_trials.append(trial)


def capped(cache: CacheConfig | None = None, mode: str = "none", gib: float | None = 16.0) -> Trial:
    random = replace(TURBO, weights="random")
    return trial(cache, pipeline=random, compute=GPU, offload=OffloadConfig(mode=mode), vram_limit_gib=gib)


def swept(folder: Path, card: SmallCard, *trials: Trial, on_oom: str = "next_offload") -> tuple[list[Record], Quiet]:
    outcome, listener = outcome_of(folder, card, *trials, on_oom=on_oom)
    return outcome.records, listener


def outcome_of(
    folder: Path, card: SmallCard, *trials: Trial, on_oom: str = "next_offload"
) -> tuple[sweep.SweepResult, Quiet]:
    space = arrange(trials)
    plan = Plan(
        name="s",
        command="zbench sweep",
        trials=space.placed,
        pruned=space.pruned,
        measure=MeasureConfig(),
        sweep=SweepConfig(runs_dir=str(folder), on_oom=on_oom),
        executor=ExecutorConfig(),
        hardware=HardwareConfig(),
        stand_in=Config(),
    )
    listener = Quiet()
    with Store(plan.run_folder, listener.note) as store:
        return sweep.Sweep(plan, store, card, capture(), listener, lambda: False).run(), listener


def test_the_record_keeps_stage_memory_and_the_offload_that_is_predicted_to_fit(tmp_path: Path) -> None:
    records, listener = swept(tmp_path, SmallCard(), capped(), on_oom="record")
    assert [record.state for record in records] == ["FAILED"] and not listener.added_trials
    reason = records[0].reason
    assert reason is not None
    assert (reason.stage, reason.memory, reason.next_offload) == ("timed rounds, decode", MEMORY, "text_encoder")


def test_the_next_offload_is_tried_until_one_fits(tmp_path: Path) -> None:
    records, listener = swept(tmp_path, SmallCard("all"), capped())
    modes = [(record.config["offload"]["mode"], record.state) for record in records]
    assert modes == [("none", "FAILED"), ("text_encoder", "FAILED"), ("all", "COMPLETE")]
    assert [made.offload.mode for made in listener.added_trials] == ["text_encoder", "all"]


def test_what_takes_the_baselines_place_is_what_others_are_compared_with(tmp_path: Path) -> None:
    card = SmallCard("text_encoder")
    records, _ = swept(tmp_path, card, capped(), capped(FORCED, mode="text_encoder"))
    baseline = next(record for record in records if record.label == "none offload:text_encoder cap:16GiB")
    cached = next(record for record in records if record.label.startswith("forced"))
    assert baseline.is_baseline and cached.baseline_id == baseline.trial_id
    assert card.ran[-1].reference is not None


def test_the_same_command_again_goes_the_same_way(tmp_path: Path) -> None:
    first, _ = swept(tmp_path, SmallCard("all"), capped())
    card = SmallCard("all")
    again, _ = swept(tmp_path, card, capped())
    assert card.ran == [] and again == first


def test_nothing_is_tried_where_no_offload_is_predicted_to_fit(tmp_path: Path) -> None:
    records, _ = swept(tmp_path, SmallCard(), capped(gib=1.0))
    assert len(records) == 1 and records[0].reason is not None and records[0].reason.next_offload is None


def test_a_baseline_that_gives_way_twice_leaves_the_others_one_that_was_measured(tmp_path: Path) -> None:
    card = SmallCard("all")
    records, _ = swept(tmp_path, card, capped(), capped(FORCED, mode="all"))
    cached = next(record for record in records if record.label.startswith("forced"))
    baseline = next(record for record in records if record.trial_id == cached.baseline_id)
    assert (baseline.state, baseline.is_baseline) == ("COMPLETE", True) and card.ran[-1].reference is not None


def test_a_stand_in_that_was_asked_for_anyway_comes_before_what_is_compared_with_it(tmp_path: Path) -> None:
    card = SmallCard("text_encoder", "dit")
    records, listener = swept(tmp_path, card, *(capped(mode=mode) for mode in ("none", "dit", "text_encoder")))
    assert [task.trial.offload.mode for task in card.ran] == ["none", "text_encoder", "dit"]
    assert not listener.added_trials and len(records) == 3
    assert len({record.baseline_id for record in records if record.state == "COMPLETE"}) == 1


def test_what_was_compared_with_another_baseline_is_measured_again(tmp_path: Path) -> None:
    trials = (capped(), capped(FORCED, mode="text_encoder"))
    swept(tmp_path, SmallCard("text_encoder"), *trials, on_oom="record")
    card = SmallCard("text_encoder")
    records, _ = swept(tmp_path, card, *trials)
    assert {task.trial.label for task in card.ran} == {record.label for record in records if record.state == "COMPLETE"}
    assert len({record.baseline_id for record in records if record.state == "COMPLETE"}) == 1


def test_a_trial_whose_stand_in_was_measured_has_not_failed_the_sweep(tmp_path: Path) -> None:
    assert outcome_of(tmp_path / "a", SmallCard("all"), capped())[0].failed == 0
    assert outcome_of(tmp_path / "b", SmallCard("all"), capped(), on_oom="record")[0].failed == 1
    assert outcome_of(tmp_path / "c", SmallCard(), capped())[0].failed > 1


def test_where_the_host_ran_out_of_memory_nothing_is_moved_to_it(tmp_path: Path) -> None:
    class FullHost(SmallCard):
        def run(self, task: Task, *_: Any) -> TaskResult:
            return Failed(Reason("out_of_memory", "MemoryError"))

    records, listener = swept(tmp_path, FullHost(), capped())
    assert records[0].reason is not None and records[0].reason.next_offload is None and not listener.added_trials
