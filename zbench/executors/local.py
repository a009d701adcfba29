"""Trials in a resident worker process on this machine; it imports no torch and survives whatever a trial does.

The worker has a session of its own, so Ctrl-C reaches only the parent. It is kept while trials succeed; after any
failure it is killed with all it started, and the next trial begins with a fresh one.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from json import dumps, loads
from pathlib import Path
from typing import Any

import dacite

import zbench
from zbench.executors import Completed, Failed, OnEvent, Outcome, Stopped, Task
from zbench.measurement import Measurement
from zbench.record import Reason
from zbench.worker import PROTOCOL_VERSION

POLL_S = 0.2
"""Longest wait between two looks at `should_stop` and the clock."""

QUIT_S = 5.0
"""How long a worker may take to leave when asked."""

LOG_TAIL_LINES = 30
LOG_LINE_CHARACTERS = 400


class WorkerGone(Exception):
    """The worker's pipe ended."""


class WorkerProcess:
    """One worker: its process, its pipes and its log."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        command_read, self._command_write = os.pipe()
        self._event_read, event_write = os.pipe()
        try:
            with log.open("ab") as out:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "zbench.worker", str(command_read), str(event_write)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    pass_fds=(command_read, event_write),
                    start_new_session=True,
                    env=_environment(),
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
        """The next event, or None if `wait_s` passes without one. Raises WorkerGone at the end of the pipe."""
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
        return event

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


class LocalExecutor:
    """One resident worker at a time."""

    def __init__(self, log_folder: Path) -> None:
        """Workers write their stdout and stderr to `log_folder/worker-<pid of this process>-<n>.log`."""
        self._log_folder = log_folder
        self._worker: WorkerProcess | None = None
        self._started = 0
        self._aborted = False

    def run(self, task: Task, on_event: OnEvent, should_stop: Callable[[], bool]) -> Outcome:
        """See `Executor.run`."""
        if self._aborted or should_stop():
            return Stopped()
        deadline = time.monotonic() + task.measure.timeout_s
        oom_kills = _oom_kills()
        worker = self._worker or self._start()
        offset = worker.log.stat().st_size
        try:
            worker.tell(_run_command(task))
            outcome = self._follow(worker, task, deadline, on_event, should_stop)
            if isinstance(outcome, Completed | Stopped):
                return outcome
            reason = outcome.reason
        except WorkerGone:
            code = self._discard()
            if self._aborted:
                return Stopped()
            reason = _death(code, _oom_kills() > oom_kills)
        else:
            self._discard()
        return Failed(Reason(reason.code, reason.message, worker.log_tail(offset)))

    def abort(self) -> None:
        """See `Executor.abort`."""
        self._aborted = True
        if self._worker is not None:
            self._worker.kill()

    def close(self) -> None:
        """Let the worker go; it is killed if it takes longer than a few seconds."""
        if self._worker is not None:
            self._worker.quit()
            self._worker = None

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> WorkerProcess:
        self._started += 1
        self._worker = WorkerProcess(self._log_folder / f"worker-{os.getpid()}-{self._started}.log")
        return self._worker

    def _discard(self) -> int:
        worker, self._worker = self._worker, None
        return 0 if worker is None else worker.discard()

    def _follow(
        self,
        worker: WorkerProcess,
        task: Task,
        deadline: float,
        on_event: OnEvent,
        should_stop: Callable[[], bool],
    ) -> Outcome:
        """Listen until the trial ends, one way or another."""
        asked_to_stop = False
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return Failed(Reason("timeout", f"took longer than measure.timeout_s={task.measure.timeout_s:g}"))
            if not asked_to_stop and should_stop():
                worker.tell({"command": "stop"})
                asked_to_stop = True
            event = worker.next_event(min(POLL_S, left_s))
            if event is None:
                if worker.process.poll() is not None:
                    raise WorkerGone
                continue
            kind = event["event"]
            if kind == "hello":
                if event["protocol"] != PROTOCOL_VERSION:
                    return Failed(Reason("worker_died", f"the worker speaks protocol {event['protocol']}"))
            elif kind == "done":
                return Completed(dacite.from_dict(Measurement, event["measurement"], dacite.Config(strict=True)))
            elif kind == "failed":
                return Failed(Reason(event["code"], event["message"]))
            elif kind == "stopped":
                return Stopped()
            else:
                on_event(event)


def _run_command(task: Task) -> dict[str, Any]:
    return {
        "command": "run",
        "trial": task.trial.to_dict(),
        "measure": asdict(task.measure),
        "artifacts": str(task.artifacts.resolve()),
        "reference": None if task.reference is None else str(task.reference.resolve()),
    }


def _environment() -> dict[str, str]:
    """This process's, with the folder that holds this very zbench importable from anywhere."""
    home = str(Path(zbench.__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{home}" if path else home}


def _death(code: int, oom_killed: bool) -> Reason:
    """Why a worker ended that was not asked to."""
    if code >= 0:
        return Reason("worker_died", f"the worker ended by itself with exit code {code}")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if -code == signal.SIGKILL:
        if oom_killed:
            return Reason("out_of_memory", "the worker was killed (signal 9) by the kernel's out-of-memory killer")
        return Reason("worker_died", "the worker was killed (signal 9), often the kernel's out-of-memory killer")
    return Reason("worker_died", f"the worker died of {name} (signal {-code})")


def _oom_kills() -> int:
    """Processes the kernel has killed for memory since it booted (proc(5), vmstat); 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
