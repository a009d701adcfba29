"""Runs one program and ends all that came of it: when it is asked to, and when whoever asked for it is gone.

A program of its own: `python -I -S guardian.py GRACE_S SCRATCH COMMAND …`. SCRATCH, unless it is empty, is a folder
that it makes before the command and removes after it. Its stdin is a pipe that the asker alone can write to; stdout and
stderr are the command's log. A byte on the pipe asks for an orderly end (SIGTERM, then after GRACE_S
SIGKILL); the pipe's end, which also kill -9 of the asker brings, kills at once. The command has a session of its own.
What it starts in further sessions, or leaves behind, comes to this process (PR_SET_CHILD_SUBREAPER) and is ended too.

It exits as the command did: 128 + N after signal N, 127 where the command cannot be run.
"""

import ctypes
import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""Of prctl(2)."""

CANNOT_RUN = 127
GIVE_UP_S = 20.0
"""How long a killed process may take to be gone; one in the kernel's hands may never be."""

POLL_S = 0.02


def descendants(of: int) -> list[int]:
    """Every process below one, as /proc says."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                below.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, new = [], list(below.get(of, []))
    while new:
        found.append(new.pop())
        new += below.get(found[-1], [])
    return found


class Guardian:
    """One program."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._program = 0
        self._status: int | None = None  # how the program ended, as waitpid(2) says; None: it runs

    def run(self, command: list[str]) -> int:
        """Until all has ended; the exit code."""
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        own = os.getpid()
        self._program = os.fork()
        if self._program == 0:
            os.setsid()
            libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != own:
                os._exit(1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            try:
                os.execvp(command[0], command)
            except OSError as error:
                os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
                os._exit(CANNOT_RUN)
        if self._wait():
            self._ask()
        self._end_all()
        status = 0 if self._status is None else self._status
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _wait(self) -> bool:
        """Until the program ended or the pipe says something: whether it asks for an orderly end."""
        while True:
            ready, _, _ = select.select([0], [], [], POLL_S)
            if ready:
                return bool(os.read(0, 1))
            self._reap()
            if self._status is not None:
                return False

    def _ask(self) -> None:
        """An orderly end, for a moment; who asked may go meanwhile."""
        with suppress(ProcessLookupError):
            os.killpg(self._program, signal.SIGTERM)
        until = time.monotonic() + self._grace_s
        while self._status is None and time.monotonic() < until:
            time.sleep(POLL_S)
            self._reap()

    def _end_all(self) -> None:
        """Kill what is left, until nothing is."""
        until = time.monotonic() + GIVE_UP_S
        while time.monotonic() < until:
            self._reap()
            left = descendants(os.getpid())
            if not left:
                return
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._program:
                    self._status = status


if __name__ == "__main__":
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # it ends with its pipe
    scratch = sys.argv[2]
    try:
        if scratch:
            os.makedirs(scratch, 0o700, exist_ok=True)
        code = Guardian(float(sys.argv[1])).run(sys.argv[3:])
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)
