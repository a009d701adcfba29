"""Sweeps whose trials overlap: who waits for whom, what is recorded of neighbours, and what a stop leaves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import GRID, SCENES, TURBO, complete, measurement, projected, trial
from plans import plan_of
from test_out_of_memory import Quiet

from zbench.analysis.work import work_key
from zbench.config import (
    ComputeConfig,
    Config,
    DBCacheConfig,
    OffloadConfig,
    SCMConfig,
)
from zbench.environment import capture
from zbench.executors import Completed, Done, Failed, OnEvent, Stopped, Task
from zbench.record import Reason, Record
from zbench.search.grid import GridSearch
from zbench.space import Space, arrange
from zbench.store import Store
from zbench.sweeper.outcome import SweepResult
from zbench.sweeper.sweep import Sweep
from zbench.trial import Trial

CACHED = [DBCacheConfig(residual_diff_threshold=0.1 * (n + 1)) for n in range(4)]


class Roomy:
    """An executor that ends the task which came last, once it is full or nothing more comes."""

    def __init__(self, capacity: int = 2, stops_after: int = 99) -> None:
        self.capacity, self._left = capacity, stops_after
        self.environments: list[dict[str, Any]] = [capture().to_dict()]
        self.held: list[Task] = []
        self.together: list[list[str]] = []

    def takes_turns(self) -> bool:
        return True

    def submit(self, task: Task) -> None:
        self.held.append(task)
        assert len(self.held) <= self.capacity

    def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
        self.together.append([task.settings[0].trial.label for task in self.held])
        task = self.held.pop()
        on_event(task, {"event": "loaded", "load_s": 1.0})
        self._left -= 1
        if self._left < 0:
            return Done(task, (Stopped(),) * len(task.settings), None)
        beside = tuple(other.settings[0].trial.trial_id for other in self.held)
        results = tuple(Completed(measurement(setting.trial)) for setting in task.settings)
        return Done(task, results, {"cpu": "elsewhere"}, beside)

    def abort(self) -> None: ...

    def close(self) -> None: ...


def swept(folder: Path, executor: Roomy, space: Space, search: Any = None) -> tuple[SweepResult, Quiet]:
    plan = plan_of(space, folder, stand_in=Config(pipeline=trial().pipeline))
    listener = Quiet()
    with Store(plan.run_folder, listener.note) as store:
        made = Sweep(plan, store, executor, search or GridSearch(space, GRID), listener, lambda: False)
        return made.run(), listener


def test_followers_wait_for_their_reference_and_then_run_together(tmp_path: Path) -> None:
    """Three settings on two workers: two take turns on one, and the third is on the other."""
    executor = Roomy()
    outcome, _ = swept(tmp_path, executor, arrange([trial(cache) for cache in CACHED[:3]]))
    labels = [trial(cache).label for cache in CACHED[:3]]
    assert executor.together == [["none"], [labels[0], labels[2]], [labels[0]]]
    assert not outcome.interrupted and {r.state for r in outcome.records} == {"COMPLETE"}


def test_a_record_says_where_it_ran_and_who_ran_beside_it(tmp_path: Path) -> None:
    outcome, _ = swept(tmp_path, Roomy(), arrange([trial(cache) for cache in CACHED[:2]]))
    reference, first, second = outcome.records
    assert {r.environment["cpu"] for r in outcome.records} == {"elsewhere"}
    assert (reference.beside, first.beside, second.beside) == ((), (), (first.trial_id,))
    assert Record.from_json(second.to_json()).beside == (first.trial_id,)


def test_what_is_independent_does_not_wait(tmp_path: Path) -> None:
    """Two pieces of work: the second reference runs beside the first."""
    other = replace(trial().pipeline, steps=4)
    executor = Roomy()
    swept(tmp_path, executor, arrange([trial(), trial(pipeline=other)]))
    assert executor.together[0] == ["none", "none"]


def test_trials_that_share_a_proxy_never_run_it_twice_at_once(tmp_path: Path) -> None:
    ahead = [projected(complete(trial()), latency_s=1.0, vram_gib=20.0, hardware=name) for name in ("h100", "b300")]
    executor = Roomy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zbench.sweeper.sweep.projected", lambda trial, measured: measured)
        outcome, _ = swept(tmp_path, executor, arrange([r.trial for r in ahead]))
    assert [len(held) for held in executor.together] == [1], "one proxy, measured once"
    assert len(outcome.records) == 2 and {r.environment["cpu"] for r in outcome.records} == {"elsewhere"}


def test_a_stop_keeps_what_is_finished_and_the_same_sweep_goes_on(tmp_path: Path) -> None:
    space = arrange([trial(cache) for cache in CACHED])
    outcome, _ = swept(tmp_path, Roomy(stops_after=2), space)
    assert outcome.interrupted and [r.state for r in outcome.records] == ["COMPLETE"] * 3
    again, _ = swept(tmp_path, executor := Roomy(), space)
    assert not again.interrupted and len(again.records) == 5
    assert len(executor.together) >= 3, "what was measured elsewhere is measured again here"


class Halving:
    """Asks for thresholds that nobody typed, each half of the last, and never for a reference."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.told: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self._threshold = 0.4

    def ask(self) -> Trial | None:
        self._threshold /= 2
        if self._threshold < 0.04:
            return None
        return trial(DBCacheConfig(residual_diff_threshold=self._threshold))

    def tell(self, record: Record, figures: Any) -> None:
        self.told.append((figures.label, record.state))
        self.ids.append(record.trial_id)


def test_a_search_may_make_its_own_trials_and_has_their_reference_measured_first(tmp_path: Path) -> None:
    search = Halving(arrange([trial(CACHED[0])]))
    outcome, listener = swept(tmp_path, Roomy(), search.space, search)
    assert search.told[0] == ("none", "COMPLETE") and len(search.told) == 4
    assert len(outcome.records) == 4, "the reference, and three thresholds"
    assert len(listener.added_trials) == 2, "0.1 was typed, and so was planned"
    assert all(r.reference_id == outcome.records[0].reference_id for r in outcome.records)


class Elsewhere(Halving):
    """Asks for one trial of other work than was typed."""

    def ask(self) -> Trial | None:
        if self._threshold < 0.4:
            return None
        self._threshold = 0.1
        return trial(CACHED[0], pipeline=replace(trial().pipeline, steps=5))


def test_the_reference_of_other_work_is_measured_too(tmp_path: Path) -> None:
    search = Elsewhere(arrange([trial()]))
    outcome, _ = swept(tmp_path, Roomy(), search.space, search)
    steps = {r.label: r.trial.pipeline.steps for r in outcome.records if r.trial_id in search.ids}
    assert steps == {"none": 5, trial(CACHED[0]).label: 5}


class Impossible(Halving):
    def __init__(self, space: Space, made: Trial) -> None:
        super().__init__(space)
        self.made = made

    def ask(self) -> Trial | None:
        return None if self.told else self.made


@pytest.mark.parametrize(
    "made", [trial(DBCacheConfig(Fn_compute_blocks=99)), trial(DBCacheConfig(residual_diff_threshold=-1.0))]
)
def test_what_a_search_makes_and_cannot_work_is_pruned_and_told(made: Trial, tmp_path: Path) -> None:
    search = Impossible(arrange([trial()]), made)
    outcome, _ = swept(tmp_path, Roomy(1), search.space, search)
    assert ("PRUNED" in {state for _, state in search.told}) and not outcome.interrupted


def test_a_search_that_repeats_itself_is_one_error_and_nothing_is_lost(tmp_path: Path) -> None:
    space = arrange([trial()])

    class Stubborn(Halving):
        def ask(self) -> Trial | None:
            return space.placed[0].trial

    from zbench.errors import ZbenchError

    with pytest.raises(ZbenchError, match=r"^search\.target=.*: asks for none twice"):
        swept(tmp_path, Roomy(1), space, Stubborn(space))
    assert (tmp_path / "s" / "records.jsonl").read_text().count("COMPLETE") == 1


def test_a_search_is_asked_no_sooner_than_there_is_room(tmp_path: Path) -> None:
    told_at: list[int] = []

    class Watching(Halving):
        def ask(self) -> Trial | None:
            told_at.append(len(self.told))
            return super().ask()

    search = Watching(arrange([trial(CACHED[0])]))
    swept(tmp_path, Roomy(2), search.space, search)
    assert told_at[:3] == [0, 1, 2], "one beside the reference that it waits for, then one for each that ended"


def test_a_reference_out_of_memory_has_its_stand_in_however_many_wait(tmp_path: Path) -> None:
    """With room for several the followers of a reference wait beside it; they must not keep its stand-in out."""
    memory = {"allocated": 15 * 2**30, "free": 2**20, "total": 80 * 2**30}

    class Small(Roomy):
        def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
            made = super().next_done(on_event, should_stop)
            if made.task.settings[0].trial.offload.mode == "none":
                return replace(made, results=(Failed(Reason("out_of_memory", "full", memory=memory)),))
            return made

    gpu, random = ComputeConfig(device="cuda"), replace(TURBO, weights="random")
    masks = [SCMConfig(scm_policy="static", Fn_compute_blocks=n + 1) for n in range(8)]
    typed = [trial(mask, pipeline=random, compute=gpu, offload=OffloadConfig(mode="text_encoder")) for mask in masks]
    outcome, _ = swept(tmp_path, Small(4), arrange(typed))
    assert not outcome.interrupted and len(outcome.records) == 10
    assert sorted(r.state for r in outcome.records) == ["COMPLETE"] * 9 + ["FAILED"]


def test_a_trial_waits_for_its_baseline_so_that_a_search_is_told_speed_ups(tmp_path: Path) -> None:
    def compiled(reference: Trial) -> Trial:
        return replace(reference, compute=replace(reference.compute, compile=True))

    speed_ups: list[float | None] = []

    class Asking(GridSearch):
        def tell(self, record: Record, figures: Any) -> None:
            speed_ups.append(figures.speedup)

    space = arrange([trial(cache) for cache in CACHED[:2]], compiled)
    swept(tmp_path, Roomy(2), space, Asking(space, GRID))
    assert speed_ups[0] is None and None not in speed_ups[1:] and len(speed_ups) == 4


class Holding(GridSearch):
    """Holds the samples of the second piece of work out of the first, too."""

    @property
    def held_out_for(self) -> dict[str, list[str]]:
        first, second = dict.fromkeys(work_key(placed.trial) for placed in self.space.placed)
        return {second: [first]}


def test_records_say_which_other_work_their_samples_are_held_out_of_and_no_longer_where_nobody_does(
    tmp_path: Path,
) -> None:
    works = [trial(CACHED[0], workload=replace(SCENES, seeds=[seed])) for seed in (0, 1)]
    space = arrange(works)
    first = work_key(works[0])

    def told(search: Any) -> dict[tuple[int, ...], set[tuple[str, ...]]]:
        outcome, _ = swept(tmp_path, Roomy(), space, search)
        found: dict[tuple[int, ...], set[tuple[str, ...]]] = {}
        for record in outcome.records:
            found.setdefault(tuple(record.trial.workload.seeds), set()).add(record.held_out_for)
        return found

    assert told(Holding(space, GRID)) == {(0,): {()}, (1,): {(first,)}}
    assert told(GridSearch(space, GRID)) == {(0,): {()}, (1,): {()}}, "from the journal"
