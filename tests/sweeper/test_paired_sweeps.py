"""Sweeps whose trials take turns with their uncached one: what is paired, what is not, and that nothing is lost."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from commands import SYNTHETIC, zbench_here
from factories import SCENES, complete, trial, with_window
from test_overlap import CACHED, Halving, Roomy, swept

from zbench.analysis.figures import TrialFigures
from zbench.analysis.speedup import EQUAL_WORKERS, companion_id, requests_by_turns
from zbench.analysis.view import view_of
from zbench.composition import overlay
from zbench.config import CacheConfig, ComputeConfig
from zbench.executors import Disrupted, Done, Failed, OnEvent
from zbench.record import Reason, Record
from zbench.space import Space, arrange
from zbench.store import read_records
from zbench.sweeper.blocks import blocks_of
from zbench.trial import Trial

GRID = ("cache=dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.08,0.12,0.24")
BRIEF = ("measure.max_warmup_rounds=1", "measure.target_rel_ci=1", "engine.options.round_s=0.001")
SAID = "+engine.options.step_s=0.1"
TRUE = {0.08: 8 / 6, 0.12: 8 / 4, 0.24: 8 / 2}
"""Of 8 steps, of which the synthetic engine skips 2, 4 and 6."""


def sweep(folder: Path, *more: str) -> Any:
    return zbench_here(folder, "sweep", *SYNTHETIC, *overlay([*GRID, *BRIEF, SAID, "sweep.name=s"], more))


def records(folder: Path) -> list[Record]:
    return read_records(folder / "runs" / "s" / "records.jsonl")


def rows(folder: Path) -> dict[float, TrialFigures]:
    view = view_of(records(folder))
    return {r.config["cache"]["residual_diff_threshold"]: row for row, r in view.pairs if "R0." in row.label}


def shown(text: str) -> list[float]:
    """The speed-ups of a table or of progress lines, in order."""
    return [float(found) for found in re.findall(r" (\d+\.\d\d)[x×]", text)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of the sweep as it is, and what it said; for all tests to read."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, sweep(folder)


@pytest.mark.parametrize("slow", [None, 5, 14, 17, 30])
def test_speed_ups_are_those_of_neighbours_and_one_slow_request_decides_none(
    slow: int | None, plain: tuple[Path, Any], tmp_path: Path
) -> None:
    """Some of the window that three settings share with the baseline, 50 times as long."""
    folder, done = plain
    if slow is not None:
        folder, done = tmp_path, sweep(tmp_path, f"+engine.options.slow_calls=[{slow}]")
    assert done.returncode == 0, done.stderr
    for threshold, row in rows(folder).items():
        assert row.speedup_way == "paired" and row.speedup == pytest.approx(TRUE[threshold], rel=0.05)
    wanted = sorted(TRUE.values())
    for text in (done.stderr, done.stdout):
        assert sorted(shown(text))[-3:] == pytest.approx(wanted, rel=0.05)


def test_the_baselines_own_requests_are_those_that_others_of_its_block_are_compared_with(
    plain: tuple[Path, Any],
) -> None:
    """So a block that a sweep has alone costs no request more, and nobody is told of a cost."""
    folder, done = plain
    baseline, *others = records(folder)
    assert baseline.measurement is not None and baseline.is_reference and baseline.is_baseline
    for record in others:
        assert record.measurement is not None
        assert [r for r in record.measurement.window.requests if r.role == "baseline"] == baseline.measurement.requests
    own, beside = requests_by_turns(records(folder))
    assert (own, beside) == (sum(len(r.measurement.requests) for r in records(folder) if r.measurement), 0)
    assert baseline.measurement.noise_floor and baseline.measurement.cold.load_s is not None
    assert done.stderr.index("[1/4] none") < done.stderr.index("[2/4]") and "turns with" not in done.stderr
    assert "turns with" not in zbench_here(folder, "plan", *SYNTHETIC, *GRID, *BRIEF, SAID).stdout


def test_one_setting_costs_no_more_requests_than_without_turns(tmp_path: Path) -> None:
    made = []
    for paired in ("true", "false"):
        one = ("cache.residual_diff_threshold=0.12", f"measure.paired={paired}", "measure.min_rounds=4")
        (tmp_path / paired).mkdir()
        sweep(tmp_path / paired, *one, "measure.max_rounds=4")
        made.append(requests_by_turns(records(tmp_path / paired)))
    assert made == [(8, 0), (8, 0)]


def test_what_further_blocks_cost_is_said_by_the_plan(plain: tuple[Path, Any]) -> None:
    six = ("cache.residual_diff_threshold=0.04,0.06,0.08,0.12,0.2,0.24",)
    planned = zbench_here(plain[0], "plan", *SYNTHETIC, *overlay([*GRID, *BRIEF, SAID], six))
    assert "turns with uncached trials take about 14 % more requests; measure.paired=false leaves" in planned.stdout


def test_where_nothing_takes_turns_nothing_is_said_of_them(tmp_path: Path) -> None:
    alone = (*SYNTHETIC, *GRID, *BRIEF, SAID, "measure.paired=false", "sweep.name=s")
    assert "turns with" not in zbench_here(tmp_path, "plan", *alone).stdout
    assert "turns with" not in zbench_here(tmp_path, "sweep", *alone).stderr


@pytest.mark.parametrize("slower_from", [4, 20, 29])
def test_a_machine_that_becomes_slower_moves_no_paired_speed_up(slower_from: int, tmp_path: Path) -> None:
    assert sweep(tmp_path, f"+engine.options.slower_from={slower_from}").returncode == 0
    for threshold, row in rows(tmp_path).items():
        assert row.speedup == pytest.approx(TRUE[threshold], rel=0.02)


def test_each_record_has_its_own_requests_memory_and_those_of_the_uncached_trial(
    plain: tuple[Path, Any],
) -> None:
    baseline, *others = records(plain[0])
    assert baseline.measurement is not None and companion_id(baseline.measurement) is None
    starts = {r.measurement.window.started_at for r in (baseline, *others) if r.measurement}
    assert len(others) == 3 and len(starts) == 1, "one window"
    for record in others:
        assert record.measurement is not None and companion_id(record.measurement) == baseline.trial_id
        assert {r.trial_id for r in record.measurement.window.requests} == {baseline.trial_id, record.trial_id}
        assert (record.measurement.memory.host_peak_rss_bytes or 0) > 2**20 and record.measurement.quality


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    sweep(tmp_path, "measure.paired=false")
    for record in records(tmp_path):
        assert record.measurement is not None and companion_id(record.measurement) is None
    assert {row.speedup_way for row in rows(tmp_path).values()} == {"unpaired"}


def test_a_trial_that_is_measured_again_alone_is_paired_anew(plain: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copytree(plain[0], tmp_path, dirs_exist_ok=True)
    journal = tmp_path / "runs" / "s" / "records.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    again = sweep(tmp_path)
    assert again.returncode == 0 and again.stderr.count("from the journal") == 3
    found = records(tmp_path)
    assert len(found) == 4 and found[-1].measurement is not None
    assert companion_id(found[-1].measurement) == found[0].trial_id
    assert {row.speedup_way for row in rows(tmp_path).values()} == {"paired"}
    own, beside = requests_by_turns(found)
    counted = f"{100 * beside / own:.0f} % more requests ({beside} more than the {own} of the trials)"
    assert beside and f"turns with uncached trials took {counted}; measure.paired=false" in again.stderr


def test_a_baseline_that_is_measured_again_waits_for_no_trial_of_the_journal(
    plain: tuple[Path, Any], tmp_path: Path
) -> None:
    shutil.copytree(plain[0], tmp_path, dirs_exist_ok=True)
    journal = tmp_path / "runs" / "s" / "records.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[1:]))
    again = sweep(tmp_path)
    assert again.returncode == 0 and again.stderr.index("[1/4] none") < again.stderr.index("[2/4]")
    assert again.stderr.count("from the journal") == 3 and len(records(tmp_path)) == 4


TWO = ("compute=eager,compiled", "cache=none,dbcache")


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep with three settings and an uncached trial in each; for all tests to read."""
    folder = tmp_path_factory.mktemp("two")
    assert sweep(folder, *TWO).returncode == 0
    return folder


def test_across_processes_the_speed_up_goes_through_the_uncached_trial_of_each(of_two_processes: Path) -> None:
    view = view_of(records(of_two_processes))
    ways = {(r.config["compute"]["compile"], "R0." in row.label): row for row, r in view.pairs}
    assert [ways[key].speedup_way for key in ((False, True), (True, True), (True, False))] == [
        "paired",
        "chained",
        "unpaired",
    ]
    chained = ways[True, True]
    assert chained.speedup and chained.speedup_low and chained.speedup_high
    assert chained.speedup_high / chained.speedup >= 1 + 1.9 * EQUAL_WORKERS, "processes of equal code differ"


def compiled_ones(folder: Path) -> list[Record]:
    return [r for r in records(folder) if r.config["compute"]["compile"]]


def test_the_uncached_trial_of_a_process_is_measured_once_in_the_turns_of_its_settings(of_two_processes: Path) -> None:
    """It is judged as any trial is, and its requests are those that the others' records keep."""
    uncached, *others = compiled_ones(of_two_processes)
    own = uncached.measurement
    assert own is not None and own.quality and {r.role for r in own.window.requests} == {"trial"}
    assert len(others) == 3 and own.cold.load_s is not None and uncached.baseline_id != uncached.trial_id
    for each in others:
        assert each.measurement is not None and companion_id(each.measurement) == uncached.trial_id
        beside = [r for r in each.measurement.window.requests if r.role == "baseline"]
        assert [replace(r, role="trial") for r in beside] == own.requests
    assert requests_by_turns(records(of_two_processes))[1] == 0


def test_six_processes_make_no_more_calls_than_without_turns(tmp_path: Path) -> None:
    """Each with an uncached trial and one setting."""
    six = ("compute.decode=eager,channels_last,compiled", "compute.ffn=split,fused", "cache=none,dbcache")
    few = ("cache.residual_diff_threshold=0.12", "measure.min_rounds=4", "measure.max_rounds=4")
    made = []
    for paired in ("true", "false"):
        (tmp_path / paired).mkdir()
        assert sweep(tmp_path / paired, *six, *few, f"measure.paired={paired}").returncode == 0
        found = records(tmp_path / paired)
        warm_ups = sum(len(r.measurement.warmup_latencies_s) for r in found if r.measurement)
        made.append((len(found), requests_by_turns(found), warm_ups))
    assert made[0] == made[1] and made[0][:2] == (12, (48, 0))


def test_an_uncached_trial_that_is_measured_again_has_turns_with_what_is_left_of_its_process(
    of_two_processes: Path, tmp_path: Path
) -> None:
    shutil.copytree(of_two_processes, tmp_path, dirs_exist_ok=True)
    uncached, *_, last = compiled_ones(tmp_path)
    journal = tmp_path / "runs" / "s" / "records.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lost = (uncached.trial_id, last.trial_id)
    journal.write_bytes(
        b"".join(line for line in lines if not any(f'"trial_id":"{i}","ref'.encode() in line for i in lost))
    )
    again = sweep(tmp_path, *TWO)
    assert again.returncode == 0 and again.stderr.count("from the journal") == 6
    found = {r.trial_id: r.measurement for r in records(tmp_path)[-2:]}
    assert found.keys() == set(lost) and len({m.window.started_at for m in found.values() if m}) == 1


ITSELF = "a trial of the sweep"


class Recording(Roomy):
    """Knows which trial took turns with which: how many settings a task had, and the uncached trial beside them."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(capacity=1)
        self.tasks: list[tuple[int, str | None]] = []
        self._fails = fails

    def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
        (task,) = self.held
        beside = ITSELF if task.compares_with_first else None if task.companion is None else task.companion.label
        self.tasks.append((len(task.settings), beside))
        if self._fails and task.companion is not None:
            self.held.clear()
            return Done(task, (Disrupted(),) * len(task.settings), {"cpu": "elsewhere"})
        return super().next_done(on_event, should_stop)


def test_where_the_uncached_trial_fails_in_its_turn_the_others_are_measured_without_it(tmp_path: Path) -> None:
    executor = Recording(fails=True)
    outcome, _ = swept(tmp_path, executor, of_settings(6))
    assert executor.tasks == [(4, ITSELF), (3, "none"), *[(1, None)] * 3]
    assert {r.state for r in outcome.records} == {"COMPLETE"} and len(outcome.records) == 7


COMPILED = ComputeConfig(compile=True)


def of_settings(count: int, compute: ComputeConfig | None = None) -> Space:
    caches = [replace(CACHED[0], residual_diff_threshold=0.01 * (n + 1)) for n in range(count)]
    uncached = [] if compute is None else [trial(compute=compute)]
    return arrange([*uncached, *(trial(cache, compute=compute or ComputeConfig()) for cache in caches)])


class SickFirst(Recording):
    """In a block that it begins a trial fails at `stage`, and alone as well where it is `incurable`."""

    def __init__(self, sick: Trial, stage: str | None, *, incurable: bool) -> None:
        super().__init__()
        self._sick, self._stage, self._incurable = sick, stage, incurable

    def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
        made = super().next_done(on_event, should_stop)
        if made.task.settings[0].trial != self._sick or not (made.task.compares_with_first or self._incurable):
            return made
        others = (Disrupted(),) * (len(made.results) - 1)
        return replace(made, results=(Failed(Reason("error", "it broke", stage=self._stage)), *others))


@pytest.mark.parametrize(
    ("stage", "incurable", "tasks", "failed"),
    [
        ("timed rounds, decode", False, [(3, ITSELF), (1, None), (2, "none")], 0),
        (None, False, [(3, ITSELF), (1, None), (2, "none")], 0),
        (None, True, [(3, ITSELF), (1, None), (1, None), (1, None)], 1),
        ("warm-up rounds, decode", False, [(3, ITSELF), (1, None), (1, None)], 1),
        ("loading", True, [(3, ITSELF), (1, None), (1, None)], 1),
    ],
)
@pytest.mark.parametrize("compute", [ComputeConfig(), COMPILED], ids=["baseline", "of another process"])
def test_one_that_fails_beside_what_it_began_with_is_tried_alone_unless_it_failed_before(
    stage: str | None,
    incurable: bool,
    tasks: list[tuple[int, str | None]],
    failed: int,
    compute: ComputeConfig,
    tmp_path: Path,
) -> None:
    uncached = trial(compute=compute)
    executor = SickFirst(uncached, stage, incurable=incurable)
    outcome, _ = swept(tmp_path, executor, arrange([uncached, *(trial(each, compute=compute) for each in CACHED[:2])]))
    before = [] if compute == ComputeConfig() else [(1, None)]
    named = [(size, uncached.label if beside == "none" else beside) for size, beside in tasks]
    assert executor.tasks == [*before, *named]
    states = [r.state for r in outcome.records]
    assert states.count("FAILED") == failed and len(states) == 3 + len(before)


def test_where_tasks_run_side_by_side_the_baseline_is_alone_so_that_all_devices_are_soon_in_use(tmp_path: Path) -> None:
    executor = Roomy(capacity=2)
    swept(tmp_path, executor, of_settings(4))
    assert executor.together[0] == ["none"] and len(executor.together[1]) == 2


def test_one_that_fails_is_left_out_and_the_others_go_on_in_turns(tmp_path: Path) -> None:
    class Sick(Recording):
        def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
            made = super().next_done(on_event, should_stop)
            sick = [s.trial.cache == CACHED[1] for s in made.task.settings]
            if not any(sick):
                return made
            failed = Failed(Reason("error", "the pipeline broke"))
            return replace(made, results=tuple(failed if each else Disrupted() for each in sick))

    executor = Sick()
    outcome, _ = swept(tmp_path, executor, arrange([trial(cache) for cache in CACHED[:3]]))
    assert executor.tasks == [(4, ITSELF), (1, None), (2, "none")]
    assert sorted(r.state for r in outcome.records) == ["COMPLETE"] * 3 + ["FAILED"]


@pytest.mark.parametrize("settings", [(3, 3, 3), (5,), (2,)])
def test_settings_are_shared_out_among_blocks_of_three_or_more_where_there_are_as_many(
    settings: tuple[int, ...], tmp_path: Path
) -> None:
    executor = Recording()
    swept(tmp_path, executor, of_settings(sum(settings)))
    assert executor.tasks == [(settings[0] + 1, ITSELF), *((n, "none") for n in settings[1:])]


def test_a_block_has_three_trials_or_more_and_four_at_most_but_for_five() -> None:
    for trials in range(3, 200):
        sizes = {trials // blocks_of(trials), -(-trials // blocks_of(trials))}
        assert min(sizes) >= 3 and max(sizes) <= (5 if trials == 5 else 4)


def test_a_search_that_decides_by_what_it_is_told_has_one_trial_at_a_time(tmp_path: Path) -> None:
    executor = Recording()
    space = arrange([trial(CACHED[3])])
    swept(tmp_path, executor, space, Halving(space))
    assert {size for size, _ in executor.tasks} == {1} and executor.tasks[1] == (1, "none")


def test_what_another_process_serves_has_its_own_uncached_trial(tmp_path: Path) -> None:
    executor = Recording()
    swept(tmp_path, executor, arrange([trial(CACHED[0]), trial(CACHED[0], compute=COMPILED)]))
    own = trial(CacheConfig(), compute=COMPILED).label
    assert executor.tasks == [(2, ITSELF), (1, own)] and own != "none"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_an_uncached_trial_that_was_asked_for_begins_its_block_wherever_it_was_typed(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    executor = Recording()
    typed = [trial(compute=COMPILED), *(trial(each, compute=COMPILED) for each in CACHED[:2])]
    outcome, _ = swept(tmp_path, executor, arrange([typed[place] for place in order]))
    assert executor.tasks == [(1, None), (3, ITSELF)] and len(outcome.records) == 4
    ways = {row.trial_id: row.baseline_id for row in outcome.records}
    assert ways[typed[0].trial_id] == trial().trial_id, "it is no baseline"


def test_of_several_works_in_one_process_each_has_its_own_uncached_trial_first(tmp_path: Path) -> None:
    works = [replace(SCENES, seeds=[seed]) for seed in (0, 1)]
    executor = Recording()
    caches = (CacheConfig(), *CACHED[:2])
    swept(tmp_path, executor, arrange([trial(c, compute=COMPILED, workload=w) for c in caches for w in works]))
    assert executor.tasks == [(1, None), (1, None), (3, ITSELF), (3, ITSELF)]


def test_references_of_works_in_several_processes_begin_the_blocks_of_their_own(tmp_path: Path) -> None:
    sizes = [replace(trial().pipeline, height=side, width=side) for side in (64, 128)]
    executor = Recording()
    swept(tmp_path, executor, arrange([trial(cache, pipeline=size) for size in sizes for cache in CACHED[:2]]))
    assert executor.tasks == [(3, ITSELF), (3, ITSELF)]


def test_further_blocks_of_a_process_have_its_uncached_trial_as_their_companion(tmp_path: Path) -> None:
    executor = Recording()
    swept(tmp_path, executor, of_settings(6, COMPILED))
    assert executor.tasks == [(1, None), (4, ITSELF), (3, trial(compute=COMPILED).label)]


def test_a_reference_that_is_no_baseline_is_alone_as_the_baseline_waits_for_it(tmp_path: Path) -> None:
    executor = Recording()
    typed = [trial(cache, compute=compute) for compute in (ComputeConfig(), COMPILED) for cache in (None, CACHED[0])]
    swept(tmp_path, executor, arrange(typed, lambda reference: replace(reference, compute=COMPILED)))
    assert sorted(executor.tasks, key=str) == [(1, "none"), (1, None), (2, ITSELF)] and executor.tasks[0] == (1, None)


def test_older_records_without_neighbours_are_unpaired() -> None:
    base = complete(trial())
    other = replace(complete(trial(CACHED[0])), baseline_id=base.trial_id, reference_id=base.trial_id)
    ways = {row.trial_id: row.speedup_way for row in view_of([base, other]).trials}
    assert ways == {base.trial_id: None, other.trial_id: "unpaired"}


def test_equal_windows_of_two_workers_are_counted_apart(plain: tuple[Path, Any]) -> None:
    """Two that began in the same millisecond on two devices, with calls of equal place."""
    found = records(plain[0])[1:2]
    assert found[0].measurement is not None
    later = [replace(r, sent_s=r.sent_s + 1e-4, done_s=r.done_s + 1e-4) for r in found[0].measurement.window.requests]
    other = with_window(found[0].measurement, requests=later)
    own, beside = requests_by_turns(found)
    assert requests_by_turns([*found, replace(found[0], measurement=other)]) == (2 * own, 2 * beside)
