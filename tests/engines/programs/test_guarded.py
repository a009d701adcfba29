"""Programs of others end with all that they started, whoever goes first."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from commands import wait_for

from zbench.engines.programs.guarded import GuardedProgram
from zbench.engines.programs.surroundings import LOGS, changed, users_own

TREE = """
import os, subprocess, sys, time
quiet = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", quiet], start_new_session=True)
if os.fork() == 0:  # leaves a grandchild behind, that is nobody's
    subprocess.Popen([sys.executable, "-c", quiet], start_new_session=True)
    os._exit(0)
os.wait()
print("all are here", flush=True)
time.sleep(600)
"""
OWNER = """
import sys, time
from pathlib import Path
from zbench.engines.programs.guarded import GuardedProgram
import os
program = GuardedProgram([sys.executable, "-c", sys.argv[1]], dict(os.environ), Path(sys.argv[2]))
while "all are here" not in program.said():
    time.sleep(0.01)
print(*program.pids, flush=True)
time.sleep(600)
"""


def started(log: Path, *command: str) -> GuardedProgram:
    return GuardedProgram([sys.executable, *command], dict(os.environ), log)


def are_gone(pids: tuple[int, ...]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_a_tree_of_sessions_and_orphans_ends_when_it_is_closed(tmp_path: Path) -> None:
    program = started(tmp_path / "log", "-c", TREE)
    wait_for(lambda: "all are here" in program.said())
    pids = program.pids
    assert len(pids) == 4  # its guardian, itself, a child in another session, an orphan
    program.close()
    program.close()
    assert are_gone(pids) and program.exit_code == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_tree_ends_with_whoever_started_it(tmp_path: Path, number: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, TREE, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pids = tuple(map(int, owner.stdout.readline().split()))
    assert len(pids) == 4 and not are_gone(pids)
    owner.send_signal(number)
    owner.communicate()
    wait_for(lambda: are_gone(pids))


def test_a_guardian_that_is_killed_takes_the_program_along(tmp_path: Path) -> None:
    program = started(tmp_path / "log", "-c", "import time; print('here', flush=True); time.sleep(600)")
    wait_for(lambda: "here" in program.said())
    guardian, child = program.pids
    os.kill(guardian, signal.SIGKILL)
    wait_for(lambda: are_gone((child,)))
    program.close()


@pytest.mark.parametrize("loses_its_guardian", [False, True])
def test_a_folder_of_its_own_is_gone_with_it(tmp_path: Path, *, loses_its_guardian: bool) -> None:
    scratch = tmp_path / "scratch"
    write = "import sys, time; open(sys.argv[1] + '/1.json', 'w'); print('here', flush=True); time.sleep(600)"
    words = [sys.executable, "-c", write, str(scratch)]
    program = GuardedProgram(words, dict(os.environ), tmp_path / "log", scratch)
    wait_for(lambda: "here" in program.said())
    assert [path.name for path in scratch.iterdir()] == ["1.json"] and scratch.stat().st_mode & 0o077 == 0
    if loses_its_guardian:
        os.kill(program.pids[0], signal.SIGKILL)
    program.close()
    assert not scratch.exists()


def test_what_a_program_left_behind_ends_with_it(tmp_path: Path) -> None:
    program = started(tmp_path / "log", "-c", TREE.replace("time.sleep(600)\n", "sys.exit(3)\n"))
    wait_for(lambda: "all are here" in program.said())
    wait_for(lambda: program.exit_code is not None)
    assert program.death() == "ended by itself with exit code 3"
    assert program.last_words() == ("all are here",)
    program.close()


def test_a_program_that_is_none_says_so_in_its_log(tmp_path: Path) -> None:
    program = GuardedProgram(["no-such-program"], dict(os.environ), tmp_path / "logs" / "log")
    wait_for(lambda: program.exit_code is not None)
    assert program.death() == "could not be started"
    assert program.last_words() == ("cannot run no-such-program: No such file or directory",)
    program.close()


def test_its_words_are_those_of_this_run_and_the_last_of_them(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of another run\n")
    program = started(log, "-c", "print(*range(100), sep='\\n\\n')")
    wait_for(lambda: program.exit_code is not None)
    assert program.last_words() == tuple(map(str, range(70, 100)))
    assert "another" not in program.said() and log.read_text().startswith("of another run")
    program.close()


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("RuntimeError: no kernel image\nCheck the load logs.", "RuntimeError: no kernel image"),
        (
            "\x1b[31m[rank1]: torch.OutOfMemoryError: CUDA out of memory\x1b[0m\nbye",
            "[rank1]: torch.OutOfMemoryError: CUDA out of memory",
        ),
        ("KeyError: 'x'\nRuntimeError: the later one", "RuntimeError: the later one"),
        ("INFO: 500 Internal Server Error\nERROR:    Exception in ASGI application", None),
    ],
)
def test_an_error_in_its_log_is_told_from_what_is_beside_it(said: str, complaint: str | None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("ValueError: of another run\n")
    program = started(log, "-c", f"print({said!r})")
    wait_for(lambda: program.exit_code is not None)
    assert program.complaint() == complaint
    assert program.complaint(after=program.log_bytes()) is None
    program.close()


def test_a_program_gets_the_users_environment_and_nothing_of_zbenchs() -> None:
    before = {"HOME": "/home/u", "PYTHONPATH": "/mine"}
    worker = changed(before, {"PYTHONPATH": "/zbench:/mine", "MALLOC_TRIM_THRESHOLD_": "1"})
    worker = changed(worker, {"MALLOC_TRIM_THRESHOLD_": "2"}) | {LOGS: "/logs", "CUDA_VISIBLE_DEVICES": "1"}
    assert worker["PYTHONPATH"] == "/zbench:/mine" and worker["MALLOC_TRIM_THRESHOLD_"] == "2"
    assert users_own(worker) == before | {"CUDA_VISIBLE_DEVICES": "1"}
