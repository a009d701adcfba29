"""A program of others from zbench's side: started without a shell, logged to a file, and ended with all it started."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from zbench.engines.programs import guardian
from zbench.errors import MachineError, ZbenchError, machine_fault

GRACE_S = 2.0
"""How long an orderly end may take. A worker that is asked to leave has 5 s for all of it."""

TAIL_LINES, LINE_CHARACTERS = 30, 400
TAIL_BYTES = 64 * 1024
"""Of a log's end, how much is read for its last lines."""

AN_ERROR = re.compile(r"(\[rank\d+\]: )?[\w.]*(Error|Exception): .")
"""The last line of a traceback; of a process of several torch.distributed begins each line with its rank."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class GuardedProgram:
    """One run of a program. It never outlives this process, however that ends."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, scratch: Path | None = None
    ) -> None:
        """Start it; what it prints is appended to `log`. `scratch` is a folder of its own, which is gone after it,
        whoever was killed. Raises MachineError, or ZbenchError where there is no log."""
        self.command, self.log, self.scratch = tuple(command), log, scratch
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as out:
                self._offset = out.tell()
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", guardian.__file__, str(GRACE_S), str(scratch or ""), *command],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    start_new_session=True,
                )
        except OSError as error:
            what = f"cannot start {command[0]} with the log {log}: {error.strerror or error}"
            raise (MachineError if machine_fault(str(error)) else ZbenchError)(what) from error

    @property
    def exit_code(self) -> int | None:
        """Of the program, 128 + N after signal N; None while it runs."""
        return self._process.poll()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of all that runs for it now, with the process that guards it."""
        return (self._process.pid, *guardian.descendants(self._process.pid))

    def death(self) -> str:
        """How it ended, in words."""
        code = self.exit_code
        if code == guardian.CANNOT_RUN:
            return "could not be started"
        if code is not None and code > 128:
            return f"was killed by signal {code - 128}"
        return f"ended by itself with exit code {code}"

    def close(self) -> None:
        """End it and all that it started; returns when they are gone. May be called twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(OSError):
                self._process.stdin.write(b"x")
                self._process.stdin.flush()
            try:
                self._process.wait(GRACE_S + guardian.GIVE_UP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            finally:
                if self.scratch is not None:
                    shutil.rmtree(self.scratch, ignore_errors=True)  # where the guardian was killed too
                with suppress(OSError):
                    self._process.stdin.close()

    def said(self) -> str:
        """All that it printed so far; empty where the log is gone."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._offset)
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def last_words(self) -> tuple[str, ...]:
        """The last lines of what it printed, without colours."""
        return self._tail(self._offset)[-TAIL_LINES:]

    def log_bytes(self) -> int:
        """How long the log is now."""
        with suppress(OSError):
            return self.log.stat().st_size
        return 0

    def complaint(self, after: int = 0) -> str | None:
        """The last line that says an error as Python does, `RuntimeError: no kernel image`; None: there is none.

        A server that goes on, or that adds advice to its error, ends with another line. `after` so many bytes of the
        log: what was wrong before is another story."""
        tail = self._tail(max(self._offset, after))
        return next((line for line in reversed(tail) if AN_ERROR.match(line)), None)

    def _tail(self, begin: int) -> tuple[str, ...]:
        try:
            with self.log.open("rb") as log:
                end = log.seek(0, 2)
                log.seek(max(begin, end - TAIL_BYTES))
                lines = COLOUR.sub("", log.read().decode(errors="replace")).splitlines()
        except OSError:
            return ()
        return tuple(line[:LINE_CHARACTERS] for line in lines if line.strip())
