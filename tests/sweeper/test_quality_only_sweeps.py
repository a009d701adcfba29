"""Sweeps of quality alone: what of the journal serves whom, and a search over masks from end to end."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import SYNTHETIC, kill, start, wait_for, zbench_here

from zbench.analysis.speedup import companion_id
from zbench.analysis.work import work_key
from zbench.record import Record
from zbench.store import latest, read_records

GRID = ("cache=dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.12,0.4")
QUICK = ("measure.min_rounds=2", "measure.max_rounds=2", "measure.max_warmup_rounds=0", "sweep.name=s")
TIMED, JUDGED = ["sweep", *SYNTHETIC, *GRID, *QUICK], ["sweep", *SYNTHETIC, *GRID, *QUICK, "measure.quality_only=true"]
MASKS = ["sweep", *SYNTHETIC[:2], "engine=surface", "hardware=cpu", "search=masks", "pipeline.steps=4", *QUICK]
N_MASKS = 7


def records(folder: Path) -> list[Record]:
    return read_records(folder / "runs" / "s" / "records.jsonl")


def lines(folder: Path) -> int:
    journal = folder / "runs" / "s" / "records.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def are_untimed(found: list[Record]) -> list[bool]:
    return [r.measurement is not None and r.measurement.quality_only for r in found]


@pytest.fixture(scope="module")
def once_judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The folder of a sweep of quality alone, and what it said; for all tests to read."""
    folder = tmp_path_factory.mktemp("judged")
    return folder, zbench_here(folder, *JUDGED)


@pytest.fixture(scope="module")
def once_timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ordinary sweep."""
    folder = tmp_path_factory.mktemp("timed")
    zbench_here(folder, *TIMED)
    return folder


@pytest.fixture
def judged(once_judged: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy for one test to change."""
    return Path(shutil.copytree(once_judged[0], tmp_path, dirs_exist_ok=True))


@pytest.fixture
def timed(once_timed: Path, tmp_path: Path) -> Path:
    """A copy for one test to change."""
    return Path(shutil.copytree(once_timed, tmp_path, dirs_exist_ok=True))


def test_a_sweep_of_quality_alone_judges_and_times_nothing(
    once_judged: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    folder, done = once_judged
    assert done.returncode == 0, done.stderr
    found = records(folder)
    assert are_untimed(found) == [True] * 3 and all(len(r.measurement.requests) == 4 for r in found if r.measurement)
    assert all(r.measure.quality_only for r in found)
    assert all(r.measurement and r.measurement.quality for r in found[1:])
    assert done.stderr.count("not timed") == 3 and "3 trials without a time (quality_only)" in done.stdout
    assert (folder / "reports" / "s" / "report.html").is_file()


def test_an_ordinary_measurement_takes_its_place(judged: Path) -> None:
    done = zbench_here(judged, *TIMED)
    assert done.stderr.count("its images alone were judged before, and now it is timed") == 3
    assert are_untimed(records(judged)) == [True] * 3 + [False] * 3
    assert not any(are_untimed(list(latest(records(judged)).values())))


@pytest.mark.parametrize("more", [(), ("measure.target_rel_ci=0.5",)])
def test_a_timed_record_serves_where_quality_alone_is_asked_for(timed: Path, more: tuple[str, ...]) -> None:
    """However long it was measured: it says of images all that is asked for."""
    done = zbench_here(timed, *JUDGED, *more)
    assert done.returncode == 0 and done.stderr.count("from the journal") == 3
    assert are_untimed(records(timed)) == [False] * 3


def test_what_was_timed_once_is_timed_again_and_never_replaced_by_less(timed: Path) -> None:
    zbench_here(timed, *JUDGED, "sweep.fresh=true")
    assert are_untimed(records(timed)) == [False] * 6


def test_a_load_is_not_measured_by_its_images(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *JUDGED, "workload=b300_page")
    assert done.returncode == 2 and "measure.quality_only=true: a load" in done.stderr


def test_recommend_leaves_out_what_has_no_time(judged: Path) -> None:
    done = zbench_here(judged, "recommend", "s")
    assert done.returncode == 2 and "3 trials without a time (quality_only)" in done.stderr


def test_masks_are_judged_the_front_timed_and_validated_in_one_sweep(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *MASKS)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path)
    assert are_untimed(found[: 1 + N_MASKS]) == [False] + [True] * N_MASKS
    last = list(latest(found).values())
    timed = [r for r in last if r.measurement and not r.measurement.quality_only and not r.is_reference]
    held_out = [r for r in last if r.trial.workload.seeds == [1]]
    assert 1 <= len(timed) <= 3 and len(held_out) == 1 + len(timed)
    assert all(r.measurement and companion_id(r.measurement) == found[0].trial_id for r in timed)
    windows = {r.measurement.window.started_at for r in timed if r.measurement}
    assert len(windows) == 1, "those that are timed take turns"
    assert "Masks on samples that they were not chosen on" in (tmp_path / "reports" / "s" / "report.md").read_text()
    recommended = zbench_here(tmp_path, "recommend", "s")
    assert "without a time (quality_only)" in recommended.stdout + recommended.stderr


def test_afresh_each_mask_is_measured_once_and_those_that_were_timed_are_timed(tmp_path: Path) -> None:
    zbench_here(tmp_path, *MASKS)
    before = records(tmp_path)
    timed = {r.trial_id for r, untimed in zip(before, are_untimed(before), strict=True) if not untimed}
    done = zbench_here(tmp_path, *MASKS, "sweep.fresh=true")
    assert done.returncode == 0, done.stderr
    again = records(tmp_path)[len(before) :]
    assert sorted(r.trial_id for r in again) == sorted({r.trial_id for r in before}), "each once"
    assert {r.trial_id for r, untimed in zip(again, are_untimed(again), strict=True) if not untimed} == timed


def test_recommend_answers_once_for_masks_that_were_held_to_other_samples(tmp_path: Path) -> None:
    zbench_here(tmp_path, *MASKS)
    found = records(tmp_path)
    assert {r.part_of for r in found if r.trial.workload.seeds == [1]} == {work_key(found[0].trial)}
    assert {r.part_of for r in found if r.trial.workload.seeds == [0]} == {None}
    done = zbench_here(tmp_path, "recommend", "s")
    assert done.returncode == 0 and "==" not in done.stdout, "one answer has no heading"


def test_a_killed_search_over_masks_goes_on_and_measures_nothing_twice(tmp_path: Path) -> None:
    process = start(tmp_path, *MASKS)
    wait_for(lambda: lines(tmp_path) >= 4 or process.poll() is not None)
    kill(process)
    before = records(tmp_path)
    done = zbench_here(tmp_path, *MASKS)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path)
    assert found[: len(before)] == before
    made = [(r.trial_id, untimed) for r, untimed in zip(found, are_untimed(found), strict=True)]
    assert len(set(made)) == len(made)
    again = zbench_here(tmp_path, *MASKS)
    assert again.returncode == 0 and lines(tmp_path) == len(found)
