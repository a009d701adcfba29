"""A worker process from its parent's side: its pipes, its first words, its log, its end. Sweeps and A/B speak by it.

What a worker is told is the caller's business.

The worker has a session of its own, so Ctrl-C reaches only the parent.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from json import dumps, loads
from pathlib import Path
from typing import Any

import zbench
from zbench.plugins import ALLOW_CODE
from zbench.record import Reason
from zbench.worker import PROTOCOL_VERSION

QUIT_S = 5.0
"""How long a worker may take to leave when asked."""

LOG_TAIL_LINES = 30
LOG_LINE_CHARACTERS = 400

KEEPS_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""For glibc's malloc, which else gives tensors back to the kernel and asks for them again: 0 to 900 page faults a
round, another number in each process. Latencies of equal workers lay up to 6 % apart so, mostly under 2 % without."""

LEAVES_NO_GAPS = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""For torch's CUDA allocator: what is freed in pieces can be used again as a whole, so peaks are those of tensors."""

HOME = Path(zbench.__file__).resolve().parent.parent
"""The folder that holds this very zbench."""


class WorkerGone(Exception):
    """The worker's pipe ended."""


class OtherProtocol(Exception):
    """The worker, of another revision of zbench perhaps, speaks another protocol."""


class WorkerClient:
    """One worker: its process, its pipes and its log."""

    def __init__(
        self,
        log: Path,
        *,
        python: str = sys.executable,
        home: Path | None = HOME,
        variables: Mapping[str, str] | None = None,
        allow_code: bool = False,
    ) -> None:
        """Start a worker that appends to `log`.

        `python` is the interpreter, `home` the folder whose zbench it runs (None: the one installed for `python`).
        `variables` are added to its environment. `allow_code`: it may run classes from outside zbench that no entry
        point names.
        """
        self.log = log
        self.environment: dict[str, Any] | None = None
        """Where the worker is, as its hello said; None before."""
        log.parent.mkdir(parents=True, exist_ok=True)
        command_read, self._command_write = os.pipe()
        self._event_read, event_write = os.pipe()
        try:
            allowed = [ALLOW_CODE] if allow_code else []
            with log.open("ab") as out:
                self.process = subprocess.Popen(
                    [python, "-P", "-m", "zbench.worker", str(command_read), str(event_write), *allowed],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    pass_fds=(command_read, event_write),
                    start_new_session=True,
                    env=_variables(home) | dict(variables or {}),
                )
        except BaseException:
            os.close(self._command_write)
            os.close(self._event_read)
            raise
        finally:
            os.close(command_read)
            os.close(event_write)
        self._pending = b""

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command. Raises WorkerGone if nobody reads."""
        try:
            data = memoryview((dumps(command, allow_nan=False) + "\n").encode())
            while data:
                data = data[os.write(self._command_write, data) :]
        except BrokenPipeError as error:
            raise WorkerGone from error

    def next_event(self, wait_s: float) -> dict[str, Any] | None:
        """The next event, or None if `wait_s` passes without one.

        Raises WorkerGone at the end of the pipe, OtherProtocol where its hello names one that is not ours.
        """
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._event_read], [], [], max(wait_s, 0.0))
            if not ready:
                return None
            chunk = os.read(self._event_read, 1 << 16)
            if not chunk:
                raise WorkerGone
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        event: dict[str, Any] = loads(line)
        if event["event"] == "hello":
            if event["protocol"] != PROTOCOL_VERSION:
                raise OtherProtocol(f"its worker speaks protocol {event['protocol']}, this zbench {PROTOCOL_VERSION}")
            self.environment = event["environment"]
        return event

    def fileno(self) -> int:
        """Of the pipe that events come by, for `select`; beware of what was read and is pending."""
        return self._event_read

    @property
    def has_pending(self) -> bool:
        """Whether an event was read already, so that `next_event` does not wait."""
        return b"\n" in self._pending

    def kill(self) -> None:
        """End the worker and everything in its process group, now. May be called twice."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError:  # a group of zombies, on some systems
            pass

    def discard(self) -> int:
        """Kill, reap, close the pipes; the process's return code."""
        self.kill()
        code = self.process.wait()
        os.close(self._command_write)
        os.close(self._event_read)
        return code

    def quit(self) -> None:
        """Ask the worker to leave, and make it leave if it does not."""
        try:
            self.tell({"command": "quit"})
            self.process.wait(QUIT_S)
        except (WorkerGone, subprocess.TimeoutExpired):
            pass
        self.discard()

    def log_tail(self, offset: int) -> tuple[str, ...]:
        """Last lines of the log after `offset` bytes."""
        with self.log.open("rb") as log:
            log.seek(offset)
            lines = log.read().decode(errors="replace").splitlines()
        return tuple(line[:LOG_LINE_CHARACTERS] for line in lines[-LOG_TAIL_LINES:])


def death(code: int, oom_killed: bool) -> Reason:
    """Why a worker ended that was not asked to."""
    if code >= 0:
        return Reason("worker_died", f"the worker ended by itself with exit code {code}")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if -code == signal.SIGKILL:
        if oom_killed:
            return Reason("out_of_memory", "the worker was killed (signal 9) by the kernel's out-of-memory killer")
        return Reason("worker_died", "the worker was killed (signal 9), often the kernel's out-of-memory killer")
    return Reason("worker_died", f"the worker died of {name} (signal {-code})")


def oom_kills() -> int:
    """Processes the kernel has killed for memory since it booted (proc(5), vmstat); 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _variables(home: Path | None) -> dict[str, str]:
    """This process's, with the zbench in `home` importable from anywhere, before any other.

    What the user set of malloc's thresholds and torch's allocator stays.
    """
    path = [] if home is None else [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**KEEPS_FREED_MEMORY, **LEAVES_NO_GAPS, **os.environ, "PYTHONPATH": os.pathsep.join(path)}
