"""A trial that runs out of device memory is data, and the way out of it can be tried at once."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import GRID, TURBO, measurement, trial
from one_at_a_time import OneAtATime
from plans import plan_of

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    OffloadConfig,
    SCMConfig,
)
from zbench.errors import RecordError
from zbench.executors import Completed, Failed, OnEvent, Setting, Task, TaskResult
from zbench.record import Reason, Record
from zbench.search.grid import GridSearch
from zbench.space import arrange
from zbench.store import Store
from zbench.sweeper import sweep
from zbench.sweeper.outcome import SweepResult
from zbench.trial import Trial

GPU = ComputeConfig(device="cuda")
FORCED = SCMConfig(scm_policy="static")
MEMORY = {"allocated": 15 * 2**30, "free": 2**20, "total": 80 * 2**30}


class SmallCard(OneAtATime):
    """An executor on which only some offload modes fit."""

    def __init__(self, *fitting: str) -> None:
        super().__init__()
        self.fitting = fitting
        self.ran: list[Setting] = []

    def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
        self.ran.append(setting)
        if self.fits(setting.trial):
            return Completed(measurement(setting.trial))
        return Failed(Reason("out_of_memory", "CUDA out of memory", stage="timed rounds, decode", memory=MEMORY))

    def fits(self, trial: Trial) -> bool:
        return trial.offload.mode in self.fitting


class TooSmallForCompiled(SmallCard):
    """A card on which what is compiled fits only with the VAE or more offloaded."""

    def fits(self, trial: Trial) -> bool:
        return trial.offload.mode in self.fitting or not trial.compute.compile


class Quiet:
    """A listener that keeps what was added and what was said."""

    def __init__(self) -> None:
        self.added_trials: list[Trial] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def reused(self, placed: Any, record: Record, figures: Any) -> None: ...

    def started(self, placed: Any, of: int = 1) -> None: ...

    def event(self, placed: Any, event: dict[str, Any]) -> None: ...

    def finished(self, placed: Any, record: Record, figures: Any) -> None: ...

    def added(self, trial: Trial, instead_of: Any) -> None:
        self.added_trials.append(trial)


def capped(cache: CacheConfig | None = None, mode: str = "none", gib: float | None = 16.0) -> Trial:
    random = replace(TURBO, weights="random")
    return trial(cache, pipeline=random, compute=GPU, offload=OffloadConfig(mode=mode), vram_limit_gib=gib)


def compiled(reference: Trial) -> Trial:
    return replace(reference, compute=replace(reference.compute, compile=True))


def swept(folder: Path, card: SmallCard, *trials: Trial, **options: Any) -> tuple[list[Record], Quiet]:
    outcome, listener = outcome_of(folder, card, *trials, **options)
    return outcome.records, listener


def outcome_of(
    folder: Path,
    card: SmallCard,
    *trials: Trial,
    on_oom: str = "next_offload",
    retry_failed: bool = False,
    baseline_of: Callable[[Trial], Trial] | None = None,
    baseline: str | None = None,
    stop_after: int = 99,
) -> tuple[SweepResult, Quiet]:
    space = arrange(trials, baseline_of)
    options = {"on_oom": on_oom, "retry_failed": retry_failed, "baseline": baseline}
    plan = plan_of(space, folder, sweep=options)
    listener = Quiet()
    with Store(plan.run_folder, listener.note) as store:
        stop = iter(range(stop_after))  # asked once a trial by the sweep itself, and never by the card
        return sweep.Sweep(
            plan, store, card, GridSearch(space, GRID), listener, lambda: next(stop, None) is None
        ).run(), listener


def journal(folder: Path) -> bytes:
    return (folder / "s" / "records.jsonl").read_bytes()


def test_the_record_keeps_stage_memory_and_the_offload_that_is_predicted_to_fit(tmp_path: Path) -> None:
    records, listener = swept(tmp_path, SmallCard("text_encoder"), capped(FORCED), on_oom="record")
    assert [made.offload.mode for made in listener.added_trials] == ["text_encoder"], "the reference's stand-in alone"
    reason = next(record.reason for record in records if record.label == "forced_medium_F1B0 cap:16GiB")
    assert reason is not None
    assert (reason.stage, reason.memory, reason.next_offload) == ("timed rounds, decode", MEMORY, "text_encoder")


def test_the_next_offload_is_tried_until_one_fits(tmp_path: Path) -> None:
    records, listener = swept(tmp_path, SmallCard("all"), capped())
    modes = [(record.config["offload"]["mode"], record.state) for record in records]
    assert modes == [("none", "FAILED"), ("text_encoder", "FAILED"), ("all", "COMPLETE")]
    assert [made.offload.mode for made in listener.added_trials] == ["text_encoder", "all"]


@pytest.mark.parametrize("on_oom", ["record", "next_offload"])
def test_a_reference_gives_way_to_the_offload_that_fits_whatever_is_done_about_others(
    tmp_path: Path, on_oom: str
) -> None:
    card = SmallCard("text_encoder")
    records, _ = swept(tmp_path, card, capped(FORCED), capped(FORCED, mode="text_encoder"), on_oom=on_oom)
    serving = next(record for record in records if record.label == "none offload:text_encoder cap:16GiB")
    assert serving.is_reference and serving.is_baseline
    assert {(r.reference_id, r.baseline_id) for r in records} == {(serving.trial_id, serving.trial_id)}
    assert Counter(record.state for record in records) == {"FAILED": 2, "COMPLETE": 2}
    judged = [task for task in card.ran if task.reference is not None]
    assert {task.reference and task.reference.name for task in judged[-1:]} == {serving.trial_id}
    assert [task.trial.cache.method for task in judged] == ["scm", "scm"], "the first, beside what did not fit"


@pytest.mark.parametrize("on_oom", ["record", "next_offload"])
def test_a_rerun_goes_the_same_way_from_the_journal_and_writes_nothing(tmp_path: Path, on_oom: str) -> None:
    trials = (capped(FORCED), capped(FORCED, mode="all"), capped(mode="text_encoder"))
    first, _ = swept(tmp_path, SmallCard("all"), *trials, on_oom=on_oom)
    before, card = journal(tmp_path), SmallCard("all")
    again, _ = swept(tmp_path, card, *trials[::-1], on_oom=on_oom)
    assert card.ran == [] and journal(tmp_path) == before
    assert {record.trial_id: record for record in again} == {record.trial_id: record for record in first}


@pytest.mark.parametrize("on_oom", ["record", "next_offload"])
def test_a_named_baseline_that_does_not_fit_gives_way_as_its_reference_does(tmp_path: Path, on_oom: str) -> None:
    options: dict[str, Any] = {"on_oom": on_oom, "baseline_of": compiled, "baseline": "compute=compiled"}
    records, _ = swept(tmp_path, SmallCard("text_encoder"), capped(FORCED, mode="text_encoder"), **options)
    assert Counter((r.trial.cache.method, r.trial.compute.compile, r.state) for r in records) == {
        ("none", False, "FAILED"): 1,
        ("none", True, "FAILED"): 1,
        ("none", False, "COMPLETE"): 1,
        ("none", True, "COMPLETE"): 1,
        ("scm", False, "COMPLETE"): 1,
    }
    (reference,) = (record for record in records if record.is_reference)
    (baseline,) = (record for record in records if record.is_baseline)
    assert not reference.trial.compute.compile and baseline.trial.compute.compile
    assert reference.trial.offload.mode == baseline.trial.offload.mode == "text_encoder"
    assert {(r.reference_id, r.baseline_id) for r in records} == {(reference.trial_id, baseline.trial_id)}
    before, card = journal(tmp_path), SmallCard("text_encoder")
    swept(tmp_path, card, capped(FORCED, mode="text_encoder"), **options)
    assert card.ran == [] and journal(tmp_path) == before


@pytest.mark.parametrize(
    ("baseline", "on_oom", "mode"),
    [
        ("compute=compiled", "record", "text_encoder"),
        ("compute=compiled offload.pin_memory=true", "record", "text_encoder"),
        ("compute=compiled offload=none", "record", "none"),
        ("compute=compiled offload={mode:none}", "record", "none"),
        ("compute=compiled offload=none", "next_offload", "text_encoder"),
    ],
)
def test_a_baseline_that_names_its_offload_is_replaced_only_if_that_is_asked_for(
    tmp_path: Path, baseline: str, on_oom: str, mode: str
) -> None:
    options: dict[str, Any] = {"on_oom": on_oom, "baseline_of": compiled, "baseline": baseline}
    records, _ = swept(tmp_path, TooSmallForCompiled("text_encoder"), capped(FORCED), **options)
    (found,) = (record for record in records if record.is_baseline)
    assert found.trial.compute.compile and found.trial.offload.mode == mode
    assert {record.baseline_id for record in records} == {found.trial_id}
    assert {record.reference_id for record in records} == {capped().trial_id}
    before, card = journal(tmp_path), TooSmallForCompiled("text_encoder")
    swept(tmp_path, card, capped(FORCED), **options)
    assert card.ran == [] and journal(tmp_path) == before


def test_a_sweep_that_is_stopped_holds_all_that_it_tried_to_the_new_baseline(tmp_path: Path) -> None:
    trials, card = (capped(FORCED), compiled(capped()), capped(replace(FORCED, scm_preset="fast"))), SmallCard("none")
    first, _ = swept(tmp_path, card, *trials)
    old = {record.trial_id: record.baseline_id for record in first}
    ran, new = len(card.ran), trials[1].trial_id
    for tried, renamed in ((1, 0), (2, 2), (3, 3), (9, 4)):
        outcome, _ = outcome_of(tmp_path, card, *trials, baseline_of=compiled, stop_after=tried)
        assert outcome.interrupted == (tried < 4) and len(card.ran) == ran
        changed = [record for record in outcome.records if record.baseline_id != old[record.trial_id]]
        assert len(changed) == renamed and {record.baseline_id for record in changed} <= {new}
    before = journal(tmp_path)
    swept(tmp_path, card, *trials, baseline_of=compiled)
    assert len(card.ran) == ran and journal(tmp_path) == before


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The journal, with the `measure` of every record changed."""
    lines = [json.loads(line) for line in journal(folder).decode().splitlines()]
    for line in lines:
        change(line["config"]["measure"])
    (folder / "s" / "records.jsonl").write_text("".join(json.dumps(x, separators=(",", ":")) + "\n" for x in lines))


def test_a_record_that_lacks_a_key_of_measure_was_measured_by_its_default(tmp_path: Path) -> None:
    card = SmallCard("none")
    swept(tmp_path, card, capped(FORCED))
    rewritten(tmp_path, lambda measure: measure.pop("clip_weights"))
    _, listener = swept(tmp_path, card, capped(FORCED))
    assert len(card.ran) == 2 and listener.notes == []


def test_a_record_of_another_measure_is_measured_again(tmp_path: Path) -> None:
    card = SmallCard("none")
    swept(tmp_path, card, capped(FORCED))
    rewritten(tmp_path, lambda measure: measure.update(max_rounds=99))
    _, listener = swept(tmp_path, card, capped(FORCED))
    assert len(card.ran) == 4 and all("the measure settings changed" in note for note in listener.notes)


@pytest.mark.parametrize("other", [{"key_of_another_zbench": 1}, {"max_rounds": "many"}])
def test_a_journal_of_another_zbench_is_not_written_into(tmp_path: Path, other: dict[str, Any]) -> None:
    card = SmallCard("none")
    swept(tmp_path, card, capped(FORCED))
    rewritten(tmp_path, lambda measure: measure.update(other))
    before = (tmp_path / "s" / "records.jsonl").read_bytes()
    with pytest.raises(RecordError, match=rf"line 1: .*{next(iter(other))}.*read it with the zbench that wrote it"):
        swept(tmp_path, card, capped(FORCED))
    assert len(card.ran) == 2 and (tmp_path / "s" / "records.jsonl").read_bytes() == before


def test_another_baseline_is_written_down_without_measuring(tmp_path: Path) -> None:
    trials, card = (capped(FORCED), compiled(capped())), SmallCard("none")
    first, _ = swept(tmp_path, card, *trials)
    ran = len(card.ran)
    second, listener = swept(tmp_path, card, *trials, baseline_of=compiled)
    assert len(card.ran) == ran == 3
    assert {record.baseline_id for record in second} == {trials[1].trial_id}
    assert {record.reference_id for record in second} == {capped().trial_id}
    assert [replace(r, baseline_id="") for r in second] == [
        replace(next(f for f in first if f.trial_id == r.trial_id), baseline_id="") for r in second
    ]
    assert listener.notes == ["speed-ups are now over none cap:16GiB compiled; nothing was measured again for that"]
    before = journal(tmp_path)
    swept(tmp_path, card, *trials, baseline_of=compiled)
    assert len(card.ran) == ran and journal(tmp_path) == before


def test_what_was_judged_against_another_reference_is_measured_again(tmp_path: Path) -> None:
    swept(tmp_path, SmallCard("text_encoder"), capped(FORCED, mode="text_encoder"))
    card = SmallCard("none", "text_encoder")
    records, listener = swept(tmp_path, card, capped(FORCED, mode="text_encoder"), retry_failed=True)
    assert [task.trial.label for task in card.ran] == [
        "none cap:16GiB",
        "forced_medium_F1B0 offload:text_encoder cap:16GiB",
    ]
    assert {record.reference_id for record in records} == {capped().trial_id}
    assert any("its images are judged against another reference" in note for note in listener.notes)


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


def test_a_trial_whose_stand_in_was_measured_has_not_failed_the_sweep(tmp_path: Path) -> None:
    assert outcome_of(tmp_path / "a", SmallCard("all"), capped())[0].failed == 0
    forced = capped(FORCED)
    assert outcome_of(tmp_path / "b", SmallCard("all"), forced, on_oom="record")[0].failed == 1, "not its reference"
    assert outcome_of(tmp_path / "c", SmallCard(), capped())[0].failed > 1


def test_where_the_host_ran_out_of_memory_nothing_is_moved_to_it(tmp_path: Path) -> None:
    class FullHost(SmallCard):
        def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
            return Failed(Reason("out_of_memory", "MemoryError"))

    records, listener = swept(tmp_path, FullHost(), capped())
    assert records[0].reason is not None and records[0].reason.next_offload is None and not listener.added_trials
