"""A sweep survives its parent's death, its worker's death and Ctrl-C, and loses no finished trial."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from ceilings import CPU_CEILINGS
from commands import SYNTHETIC, kill, start, wait_for, zbench, zbench_here

from zbench.composition import overlay
from zbench.hardware.ceilings import device_name, store_ceilings
from zbench.record import Record
from zbench.store import read_records

GRID = ("cache=dbcache", "cache.max_warmup_steps=2,4", "cache.residual_diff_threshold=0.12,0.24,0.4")
QUICK = ("measure.min_rounds=2", "measure.max_rounds=2", "measure.max_warmup_rounds=0")
TRIALS = 7  # 2 × 3 settings and the baseline


def sweep(*more: str) -> list[str]:
    return ["sweep", *SYNTHETIC, *overlay([*GRID, *QUICK, "sweep.name=s"], more)]


def records(folder: Path) -> list[Record]:
    return read_records(folder / "runs" / "s" / "records.jsonl")


def finished(folder: Path) -> int:
    journal = folder / "runs" / "s" / "records.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The folder of a sweep that a process of its own made, and what that said; for all tests to read."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, zbench(folder, *sweep())


@pytest.fixture
def measured(whole: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of it, for one test to change."""
    return Path(shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True))


def test_a_sweep_measures_the_baseline_first_and_every_trial_once(
    whole: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    folder, done = whole
    assert done.returncode == 0, done.stderr
    found = records(folder)
    assert len(found) == TRIALS and found[0].is_baseline
    assert Counter(r.state for r in found) == {"COMPLETE": TRIALS}
    assert {r.baseline_id for r in found} == {found[0].trial_id}
    assert all(r.measurement and r.measurement.quality for r in found[1:])
    assert f"[{TRIALS}/{TRIALS}]" in done.stderr and "ETA" in done.stderr
    assert (folder / "reports" / "s" / "report.html").is_file()
    assert done.stdout.count("F1B0_") >= TRIALS - 1


def test_the_same_command_again_measures_nothing(measured: Path) -> None:
    before = (measured / "runs" / "s" / "records.jsonl").read_bytes()
    again = zbench_here(measured, *sweep())
    assert again.returncode == 0 and again.stderr.count("from the journal") == TRIALS
    assert (measured / "runs" / "s" / "records.jsonl").read_bytes() == before


def test_a_changed_measure_measures_again_and_says_why(measured: Path) -> None:
    again = zbench_here(measured, *sweep("measure.target_rel_ci=0.5"))
    assert again.stderr.count("is measured again: the measure settings changed") == TRIALS
    assert len(records(measured)) == 2 * TRIALS


def test_fresh_measures_everything_again(measured: Path) -> None:
    zbench_here(measured, *sweep("sweep.fresh=true"))
    assert len(records(measured)) == 2 * TRIALS


def test_the_default_name_is_that_of_the_set_of_trials(tmp_path: Path) -> None:
    args = ["sweep", *SYNTHETIC, *GRID, *QUICK]
    zbench_here(tmp_path, *args)
    zbench_here(tmp_path, *[*args[:-1], "measure.max_warmup_rounds=1"])
    (folder,) = [p for p in (tmp_path / "runs").iterdir() if p.is_dir()]
    assert folder.name.startswith("sweep-") and len(folder.name) == len("sweep-") + 8


@pytest.mark.parametrize(
    ("option", "code", "says"),
    [
        ("crash_on", "worker_died", "SIGABRT"),
        ("kill_on", "worker_died", "signal 9"),
        ("raise_memory_error_on", "out_of_memory", "MemoryError"),
        ("raise_on", "error", ""),
    ],
)
def test_a_sick_trial_fails_with_its_reason_and_the_sweep_goes_on(
    tmp_path: Path, option: str, code: str, says: str
) -> None:
    done = zbench_here(tmp_path, *sweep(f"engine.options.{option}=0.24"))
    assert done.returncode == 4, done.stderr
    found = records(tmp_path)
    sick = [r for r in found if r.state == "FAILED"]
    assert {r.config["cache"]["residual_diff_threshold"] for r in sick} == {0.24} and len(sick) == 2
    assert Counter(r.state for r in found) == {"COMPLETE": TRIALS - 2, "FAILED": 2}
    for record in sick:
        assert record.reason is not None and record.measurement is None
        assert record.reason.code == code and says in record.reason.message
        assert record.reason.log_tail
        said = "\n".join([record.reason.message, *record.reason.log_tail])
        places = (tmp_path, Path(__file__).parents[2], Path(sys.prefix))
        assert not [place for place in places if str(place) in said], "a record goes to people of other machines"
    assert "sweep.retry_failed=true" in done.stderr


def test_a_hanging_trial_times_out_and_the_sweep_goes_on(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *sweep("engine.options.hang_on=0.24", "measure.timeout_s=2"))
    assert done.returncode == 4
    sick = [r for r in records(tmp_path) if r.state == "FAILED"]
    assert [r.reason.code for r in sick if r.reason] == ["timeout", "timeout"]
    assert finished(tmp_path) == TRIALS


def test_failed_trials_run_again_only_when_asked(tmp_path: Path) -> None:
    zbench_here(tmp_path, *sweep("engine.options.raise_on=0.24"))
    kept = zbench_here(tmp_path, *sweep("engine.options.raise_on=0.24"))
    assert kept.returncode == 4 and finished(tmp_path) == TRIALS
    zbench_here(tmp_path, *sweep("engine.options.raise_on=0.24", "sweep.retry_failed=true"))
    assert finished(tmp_path) == TRIALS + 2


def test_twenty_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(20)
    args = sweep("engine.options.round_s=0.06", "engine.options.load_s=0.05", "cache.max_warmup_steps=1,2,3,4,5,6,7")
    total = 1 + 7 * 3
    orphans: list[psutil.Process] = []
    for _ in range(20):
        process = start(tmp_path, *args)
        if chance.random() < 0.5:  # anywhere: starting up, planning, holding the folder, running
            time.sleep(chance.uniform(0.05, 2.5))
        else:  # near the end of a trial, where a line is being written
            target = finished(tmp_path) + 1
            wait_for(lambda at=target, p=process: finished(tmp_path) >= at or p.poll() is not None)
        before = finished(tmp_path)
        if process.poll() is not None:  # a quick machine was done before it could be killed so often
            break
        orphans += kill(process)
        assert not before or len(records(tmp_path)) >= before
    _, alive = psutil.wait_procs(orphans, timeout=30)
    assert not alive, "a worker outlived its parent by 30 s"
    end = zbench_here(tmp_path, *args)
    assert end.returncode == 0, end.stderr
    counts = Counter(r.trial_id for r in records(tmp_path))
    assert len(counts) == total and set(counts.values()) == {1}


def test_ctrl_c_stops_after_the_round_and_the_same_command_goes_on(tmp_path: Path) -> None:
    args = sweep("engine.options.round_s=0.3")
    process = start(tmp_path, *args)
    wait_for(lambda: finished(tmp_path) >= 2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopping after the current round" in err and "To go on: zbench sweep" in err
    kept = finished(tmp_path)
    assert 2 <= kept < TRIALS and not out
    again = zbench_here(tmp_path, *args)
    assert again.returncode == 0 and again.stderr.count("from the journal") == kept
    assert set(Counter(r.trial_id for r in records(tmp_path)).values()) == {1}


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, *sweep("engine.options.hang_on=0.12", "measure.paired=false"))
    wait_for(lambda: finished(tmp_path) >= 1)
    os.kill(process.pid, signal.SIGINT)
    assert process.stderr is not None
    while "Ctrl-C again stops at once" not in process.stderr.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)  # only now: two signals at once are one to the kernel
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err


def test_two_sweeps_never_write_one_folder(tmp_path: Path) -> None:
    first = start(tmp_path, *sweep("engine.options.round_s=0.5"))
    wait_for(lambda: finished(tmp_path) >= 1)
    second = zbench_here(tmp_path, *sweep("engine.options.round_s=0.5"))
    assert second.returncode == 2
    assert f"in use by process {first.pid} on " in second.stderr
    kill(first)


def test_a_torn_last_line_is_repaired_with_a_notice(measured: Path) -> None:
    journal = measured / "runs" / "s" / "records.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    again = zbench_here(measured, *sweep())
    assert again.returncode == 0 and "the last line was torn" in again.stderr
    assert Counter(r.trial_id for r in records(measured)).most_common(1)[0][1] == 1
    assert len(records(measured)) == TRIALS


def test_combinations_that_cannot_work_are_pruned_with_a_reason_before_anything_starts(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *sweep("cache.max_warmup_steps=2", "cache.Fn_compute_blocks=1,99"))
    assert done.returncode == 0, done.stderr
    pruned = [r for r in records(tmp_path) if r.state == "PRUNED"]
    assert len(pruned) == 3
    assert all(r.reason and "cache.Fn_compute_blocks=99" in r.reason.message for r in pruned)
    journal = (tmp_path / "runs" / "s" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["state"] for line in journal[:3]] == ["PRUNED"] * 3


def test_one_run_is_a_trial_and_its_baseline(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, "run", *SYNTHETIC, *QUICK, "cache=dbcache", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"][0]["label"] == "none"
    (folder,) = [p for p in (tmp_path / "runs").iterdir() if p.is_dir()]
    assert folder.name.startswith("run-") and len(read_records(folder / "records.jsonl")) == 2


def test_records_carry_the_ceilings_and_a_broken_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZBENCH_CEILINGS_DIR", str(tmp_path / "ceilings"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = store_ceilings({**CPU_CEILINGS, "device": device_name([])})
    one = ("run", *SYNTHETIC, *QUICK, "sweep.name=s")
    assert zbench_here(tmp_path, *one).returncode == 0
    assert [r.environment["ceilings"]["figures"] for r in records(tmp_path)] == [CPU_CEILINGS["figures"]]
    path.write_text("{}")
    again = zbench_here(tmp_path, *one)
    assert again.returncode == 2 and str(path) in again.stderr and "Traceback" not in again.stderr
    path.unlink()
    assert "from the journal" in zbench_here(tmp_path, *one).stderr  # ceilings do not make a measurement another one
