"""`zbench ab` and a sweep beside a measurement that has their device."""

import json
import os
import signal
from pathlib import Path

import pytest
from commands import SYNTHETIC, start, wait_for, zbench

from zbench.hardware.turns import FOLDER_VARIABLE, TurnOnDevices

QUICK = (*SYNTHETIC, "workload=single", "engine.options.round_s=0.004")


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TurnOnDevices:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    turn = TurnOnDevices(["cpu"], "runs/other")
    turn.begin()
    return turn


def test_a_comparison_waits_for_its_turn_and_says_for_whom(other: TurnOnDevices, tmp_path: Path) -> None:
    ab = start(tmp_path, "ab", *QUICK, "--margin", "40%", "sweep.name=waits")
    log = tmp_path / "runs/waits/turns.log"
    wait_for(log.exists)
    assert not (tmp_path / "runs/waits/blocks.jsonl").exists()
    other.end()
    _, err = ab.communicate(timeout=120)
    assert ab.returncode == 0, err
    assert "note: waits for its turn on cpu: " in err and f"(runs/other, pid {os.getpid()}, " in err
    assert f"(runs/other, pid {os.getpid()}, " in log.read_text()
    head = json.loads((tmp_path / "runs/waits/blocks.jsonl").read_text().splitlines()[0])
    assert head["turn"]["kept"] == "alone" and head["turn"]["waited_s"] > 0


def test_one_that_waits_ends_at_the_first_interrupt(other: TurnOnDevices, tmp_path: Path) -> None:
    ab = start(tmp_path, "ab", *QUICK, "sweep.name=waits")
    wait_for((tmp_path / "runs/waits/turns.log").exists)
    ab.send_signal(signal.SIGINT)
    ab.communicate(timeout=60)
    assert ab.returncode == 130 and not other.end().beside


def test_a_comparison_that_shares_the_device_does_not_wait_and_says_so(other: TurnOnDevices, tmp_path: Path) -> None:
    done = zbench(tmp_path, "ab", *QUICK, "--margin", "40%", "sweep.name=shares", "executor.share_device=true")
    assert done.returncode == 0, done.stderr
    assert "others may measure on the device meanwhile" in done.stderr
    head = json.loads((tmp_path / "runs/shares/blocks.jsonl").read_text().splitlines()[0])
    assert head["turn"]["kept"] == "shared" and len(other.end().beside) == 1


def test_a_sweep_that_waits_says_for_whom_and_a_table_that_it_shared(other: TurnOnDevices, tmp_path: Path) -> None:
    trials = (*SYNTHETIC, "cache=none", "sweep.name=s")
    sweep = start(tmp_path, "sweep", *trials)
    logs = tmp_path / "runs/s/logs"
    wait_for(lambda: any("waits for its turn on cpu" in path.read_text() for path in logs.glob("*.log")))
    sweep.send_signal(signal.SIGINT)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130 and "none: waits for its turn on cpu: " in err
    shared = zbench(tmp_path, "sweep", *trials, "executor.share_device=true")
    assert shared.returncode == 0 and "executor.share_device=true" in shared.stdout, shared.stderr
