"""Every signal that asks for an end is heard; those that were ignored from the start stay so."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from commands import SYNTHETIC, environment, start, wait_for, workers_of
from one_at_a_time import OneAtATime

from zbench.store import read_records
from zbench.sweeper.signals import Interrupt, on_interrupt
from zbench.sweeper.terminal import ENDING, end_as_ctrl_c_does

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SLOW = ("engine.options.round_s=0.4", "measure.min_rounds=4", "measure.max_rounds=4", "measure.max_warmup_rounds=0")


class Aborted(OneAtATime):
    """Counts how often it was told to stop at once."""

    aborts = 0

    def abort(self) -> None:
        self.aborts += 1


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    """Those that whoever runs the tests has ignored, as nohup does, are heard here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTSTP, *ENDING)}
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("first", ASKING)
@pytest.mark.parametrize("second", ASKING)
def test_the_first_asks_and_the_second_stops_at_once(
    first: signal.Signals, second: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    executor = Aborted()
    interrupt = Interrupt(executor)
    with on_interrupt(interrupt):
        signal.raise_signal(first)
        assert interrupt.asked and executor.aborts == 0
        signal.raise_signal(second)
    assert executor.aborts == 1
    assert "stopping after the current round; Ctrl-C again stops at once" in capfd.readouterr().err


def test_ctrl_backslash_stops_at_once() -> None:
    executor = Aborted()
    interrupt = Interrupt(executor)
    with on_interrupt(interrupt):
        signal.raise_signal(signal.SIGQUIT)
    assert interrupt.asked and executor.aborts == 1


def test_what_nohup_ignores_stays_ignored_and_afterwards_all_is_as_before() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTSTP, *ENDING)}
    interrupt = Interrupt(Aborted())
    with on_interrupt(interrupt):
        signal.raise_signal(signal.SIGHUP)
        assert not interrupt.asked
    assert {number: signal.getsignal(number) for number in before} == before
    end_as_ctrl_c_does()
    signal.raise_signal(signal.SIGHUP)


@pytest.mark.parametrize("number", ENDING)
def test_elsewhere_they_interrupt_as_ctrl_c_does(number: signal.Signals) -> None:
    end_as_ctrl_c_does()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_a_sweep_whose_terminal_is_closed_ends_as_by_ctrl_c(tmp_path: Path) -> None:
    """On a terminal the live table is drawn to it, and both outputs fail once it is gone."""
    command = [sys.executable, "-m", "zbench", "sweep", *SYNTHETIC, *SLOW, "cache=dbcache", "sweep.name=s"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(command[0], command, {**environment(), "TERM": "xterm"})
    journal = tmp_path / "runs" / "s" / "records.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n")):
        with suppress(OSError):
            os.read(terminal, 1 << 16)
    workers = workers_of(pid)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert len(read_records(journal)) >= 1
    assert not psutil.wait_procs(workers, timeout=5)[1]


def test_ctrl_z_pauses_the_workers_too_and_is_neither_a_timeout_nor_a_slow_round(tmp_path: Path) -> None:
    args = (*SYNTHETIC, *SLOW, "cache=none", "measure.timeout_s=6", "sweep.name=s")
    process = start(tmp_path, "run", *args)
    log = tmp_path / "runs" / "s" / "logs"
    wait_for(lambda: any("trial" in each.read_text() for each in log.glob("*.log")))
    time.sleep(0.6)  # into its rounds, of 1.6 s together
    os.kill(process.pid, signal.SIGTSTP)
    everyone = [psutil.Process(process.pid), *(w for w in workers_of(process.pid) if "zbench.worker" in w.cmdline())]
    wait_for(lambda: all(each.status() == psutil.STATUS_STOPPED for each in everyone))
    time.sleep(7.0)  # longer than a trial may take
    os.kill(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (record,) = read_records(tmp_path / "runs" / "s" / "records.jsonl")
    assert record.measurement is not None
    paused = [r for r in record.measurement.requests if "suspended" in r.disturbances]
    assert len(record.measurement.requests) - len(paused) >= 4, "the rounds that were asked for are whole"
    assert all(not r.valid and r.invalid_reasons == ["suspended"] for r in paused)
    assert max(r.latency_s for r in record.measurement.requests if r.valid) < 6


def test_sigterm_before_anything_was_measured_is_no_traceback(tmp_path: Path) -> None:
    process = start(tmp_path, "run", *SYNTHETIC, *SLOW, "engine.options.load_s=30", "sweep.name=s")
    wait_for(lambda: any((tmp_path / "runs" / "s").glob("logs/*.log")))
    for _ in range(2):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.5)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and not out and "Traceback" not in err
    assert "To go on: zbench run" in err


def test_the_children_of_a_shell_in_the_background_can_be_interrupted(tmp_path: Path) -> None:
    """Such a shell has them ignore SIGINT, and yet a script may send it."""
    code = "import signal, sys; from zbench.sweeper.signals import on_interrupt\n"
    code += "with on_interrupt(lambda *_: sys.exit(7)): signal.raise_signal(signal.SIGINT)"
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, code], env=environment(), check=False
    )
    assert done.returncode == 7
