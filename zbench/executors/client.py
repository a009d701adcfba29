"""A worker process from its parent's side: its pipes, its first words, its log, its end. Sweeps and A/B speak by it.

What a worker is told is the caller's business.

The worker has a session of its own, so Ctrl-C reaches only the parent. It never outlives its parent: the kernel kills
it (`worker.lifetime`), and a watcher beside it kills all that it started.
"""

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from json import dumps, loads
from pathlib import Path
from typing import Any

import psutil

import zbench
from zbench.engines.lifeline import WHERE, answers
from zbench.engines.programs.surroundings import LOGS, changed
from zbench.errors import MachineError, machine_fault
from zbench.plugins import ALLOW_CODE
from zbench.record import Reason
from zbench.worker import PROTOCOL_VERSION
from zbench.worker.lifetime import VARIABLE

WORDS_S = 1.0
"""How long processes that are asked where they stand have for their answer."""

QUIT_S = 5.0
"""How long a worker may take to leave when asked."""

LONGEST_LOOK_S = 1.0
"""Who waits for a worker looks at the clock some times a second. More between two looks was no waiting: this process
was stopped (Ctrl-Z), or the whole machine slept."""

LOG_TAIL_LINES = 30
LOG_LINE_CHARACTERS = 400
RANK = re.compile(r"^\[rank \d+\] ")
"""How a line of the log begins that a follower printed."""

KEEPS_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""For glibc's malloc, which else gives tensors back to the kernel and asks for them again: 0 to 900 page faults a
round, another number in each process. Latencies of equal workers lay up to 6 % apart so, mostly under 2 % without."""

LEAVES_NO_GAPS = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""For torch's CUDA allocator: what is freed in pieces can be used again as a whole, so peaks are those of tensors."""

WAITS_BRIEFLY = {"GOMP_SPINCOUNT": "1000"}
"""For torch's threads on a CPU (libgomp), which wait for one another some hundred times a call: else they spin for a
millisecond each time. Beside other programs that takes the core from the thread that is waited for: on two cores beside
two such programs a call of 0.07 s took 9.9 s, and takes 0.2 s so. On cores of its own it takes as long as before."""

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
        self._pending = b""
        self._ends: list[int] = []  # of pipes, this process's
        allowed = [ALLOW_CODE] if allow_code else []
        theirs: list[int] = []
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            for mine in (1, 0, 1):
                pipe = os.pipe()
                self._ends.append(pipe[mine])
                theirs.append(pipe[1 - mine])
            with log.open("ab") as out:
                self.process = subprocess.Popen(
                    [python, "-P", "-m", "zbench.worker", str(theirs[0]), str(theirs[1]), *allowed],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    pass_fds=theirs,
                    start_new_session=True,
                    env={
                        **_variables(home),
                        **(variables or {}),
                        LOGS: str(log.parent.resolve()),
                        VARIABLE: f"{_main_thread()}:{theirs[2]}",
                    },
                )
        except BaseException as error:
            self._close_pipes()
            if isinstance(error, OSError):
                raise MachineError(_cannot_start(python, log, error)) from error
            raise
        finally:
            for end in theirs:
                os.close(end)
        self._command_write, self._event_read, _ = self._ends
        LIVE.add(self)

    def _close_pipes(self) -> None:
        while self._ends:
            os.close(self._ends.pop())

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self.process.poll() is not None

    @property
    def is_stopped(self) -> bool:
        """Whether somebody stopped the worker (SIGSTOP), so that it cannot answer."""
        try:
            return psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the worker and to everything in its process group; to nobody if they are gone."""
        with suppress(ProcessLookupError, PermissionError):  # the latter: a group of zombies, on some systems
            os.killpg(self.process.pid, number)

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

    def ask_where(self) -> tuple[str, ...]:
        """Have its processes print where they stand into the log; the innermost calls of each rank."""
        said_before = self.log_bytes
        with suppress(psutil.Error):
            worker = psutil.Process(self.process.pid)
            for each in (worker, *worker.children(recursive=True)):
                if answers(each.pid, WHERE):
                    each.send_signal(WHERE)
        time.sleep(WORDS_S)
        by_rank: dict[str, list[str]] = {}
        for line in self._log_lines(said_before):
            by_rank.setdefault("".join(RANK.findall(line)), []).append(line)
        return tuple(line for said in by_rank.values() for line in said[: LOG_TAIL_LINES // len(by_rank)])

    def kill(self) -> None:
        """End the worker and everything in its process group, now. May be called twice."""
        self.send(signal.SIGKILL)

    def discard(self) -> int:
        """Kill, reap, close the pipes; the process's return code."""
        LIVE.discard(self)
        self.kill()
        code = self.process.wait()
        self._close_pipes()
        return code

    def quit(self) -> None:
        """Ask the worker to leave, and make it leave if it does not."""
        try:
            self.tell({"command": "quit"})
            self.process.wait(QUIT_S)
        except (WorkerGone, subprocess.TimeoutExpired):
            pass
        self.discard()

    def note(self, text: str) -> None:
        """Write a line into the worker's log, if there is room."""
        with suppress(OSError), self.log.open("a", encoding="utf-8", errors="replace") as log:
            log.write(text + "\n")

    @property
    def log_bytes(self) -> int:
        """How long the log is by now; 0 where it is gone."""
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def log_tail(self, offset: int) -> tuple[str, ...]:
        """Last lines of the log after `offset` bytes; none where it is gone."""
        return tuple(self._log_lines(offset)[-LOG_TAIL_LINES:])

    def _log_lines(self, offset: int) -> list[str]:
        try:
            with self.log.open("rb") as log:
                log.seek(offset)
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line[:LOG_LINE_CHARACTERS] for line in lines]


LIVE: set[WorkerClient] = set()
"""Every worker that this process has."""


class Patience:
    """How long a worker may still take. What was no waiting does not count: while this process did not run, or while
    the worker was stopped."""

    def __init__(self, limit_s: float, client: WorkerClient, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._left_s, self._client, self._clock = limit_s, client, clock
        self._looked = clock()

    def renew(self, limit_s: float) -> None:
        """From now on so many seconds are left."""
        self._left_s, self._looked = limit_s, self._clock()

    def left_s(self) -> float:
        """Seconds left; to be asked some times a second."""
        now = self._clock()
        waited_s = min(now - self._looked, LONGEST_LOOK_S)
        self._looked = now
        if not self._client.is_stopped:
            self._left_s -= waited_s
        return self._left_s


def _main_thread() -> str:
    """This process's id, where its main thread asks: the kernel takes the end of a thread for that of a parent."""
    return str(os.getpid()) if threading.current_thread() is threading.main_thread() else ""


def _cannot_start(python: str, log: Path, error: OSError) -> str:
    what = f"{error.filename or python}: {error.strerror}"
    way_out = machine_fault(str(error)) or f"see that {python} can be run and {log.parent} written"
    return f"cannot start a worker, {what}; {way_out}"


def death(code: int, oom_killed: bool, who: str = "the worker") -> Reason:
    """Why a worker ended that was not asked to; `who` is what it is called."""
    if code >= 0:
        return Reason("worker_died", f"{who} ended by itself with exit code {code}")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if -code == signal.SIGKILL:
        if oom_killed:
            return Reason("out_of_memory", f"{who} was killed (signal 9) by the kernel's out-of-memory killer")
        return Reason("worker_died", f"{who} was killed (signal 9), often the kernel's out-of-memory killer")
    return Reason("worker_died", f"{who} died of {name} (signal {-code})")


def _variables(home: Path | None) -> dict[str, str]:
    """This process's, with the zbench in `home` importable from anywhere, before any other.

    What the user set of malloc's thresholds, torch's allocator and how threads wait stays.
    """
    waits = {} if "OMP_WAIT_POLICY" in os.environ else WAITS_BRIEFLY
    path = [] if home is None else [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    wanted = KEEPS_FREED_MEMORY | LEAVES_NO_GAPS | waits
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    return changed(os.environ, {**ours, "PYTHONPATH": os.pathsep.join(path)})
