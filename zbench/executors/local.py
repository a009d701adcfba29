"""Trials in a resident worker process on this machine; it imports no torch and survives whatever a trial does.

The worker has a session of its own, so Ctrl-C reaches only the parent. It is kept while trials succeed; after any
failure it is killed with all it started, and the next trial begins with a fresh one.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dacite

from zbench.executors import Completed, Failed, OnEvent, Stopped, Task, TaskResult
from zbench.executors.process import WorkerGone, WorkerProcess, death, oom_kills
from zbench.measurement import Measurement
from zbench.record import Reason
from zbench.worker import PROTOCOL_VERSION

POLL_S = 0.2
"""Longest wait between two looks at `should_stop` and the clock."""


class LocalExecutor:
    """One resident worker at a time."""

    def __init__(self, log_folder: Path, *, allow_code: bool = False) -> None:
        """Workers write their stdout and stderr to `log_folder/worker-<pid of this process>-<n>.log`.

        `allow_code`: they may run classes from outside zbench that no entry point names.
        """
        self._log_folder = log_folder
        self._allow_code = allow_code
        self._worker: WorkerProcess | None = None
        self._started = 0
        self._aborted = False

    def run(self, task: Task, on_event: OnEvent, should_stop: Callable[[], bool]) -> TaskResult:
        """See `Executor.run`."""
        if self._aborted or should_stop():
            return Stopped()
        deadline = time.monotonic() + task.measure.timeout_s
        kills_before = oom_kills()
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
            reason = death(code, oom_kills() > kills_before)
        else:
            self._discard()
        return Failed(replace(reason, log_tail=worker.log_tail(offset)))

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
        log = self._log_folder / f"worker-{os.getpid()}-{self._started}.log"
        self._worker = WorkerProcess(log, allow_code=self._allow_code)
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
    ) -> TaskResult:
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
                told = Reason(event["code"], event["message"], stage=event.get("stage"), memory=event.get("memory"))
                return Failed(told)
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
        "is_reference": task.is_reference,
    }
