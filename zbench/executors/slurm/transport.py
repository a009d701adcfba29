"""Carries a pool's messages to jobs of Slurm and back through a spool (`channel`), and sees which jobs are gone.

A worker is a job until that ends or is requeued. A job that Slurm requeues keeps its place in the queue: it is the next
worker that the pool asks for. A job that says that its time is nearly up is gone as soon as it has ended its task.
"""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zbench.config import SlurmExecutorConfig
from zbench.errors import MachineError, cannot_write, one_line
from zbench.executors.remote import Heard, Lost, wire
from zbench.executors.remote.spool import Ear, Pulse, SpoolReader, SpoolWriter, left_in
from zbench.executors.slurm.channel import AGAIN, IDS, LOGS, PULSE, Channel, next_channel
from zbench.executors.slurm.entry import BEATS, GO, READ_S
from zbench.executors.slurm.jobs import last_line
from zbench.executors.slurm.queue import GONE, JobState
from zbench.streams import talk

LISTEN_S = 1.0
"""Between two looks at who still lives."""

BEGINS_WITHIN_S = 600.0
"""How long a job may run before its worker says something: a shared file system may take minutes to load Python."""

LEAVES_WITHIN_S = 10.0
"""How long jobs that were asked to leave may take, until they are cancelled."""

CLOSE_POLL_S = 0.3

WAYS_OUT = {
    "TIMEOUT": "; a longer executor.time_min leaves its trials more time",
    "OUT_OF_MEMORY": "; executor.mem_gib asks for more",
    GONE: "; Slurm does not know it any more",
}
"""What there is to say of how a job ended."""

ENDED = ("bye", "broken")
"""What a worker says last."""


class Queue(Protocol):
    """What `jobs.SlurmJobs` does."""

    def submit(self, folder: Path, prints: Path, devices: int, avoid: Sequence[str]) -> str: ...
    def states(self, ids: Iterable[str]) -> dict[str, JobState] | None: ...
    def cancel(self, ids: Iterable[str]) -> str | None: ...


@dataclass(eq=False)
class SlurmJob:
    """A job that was submitted and has not ended, as far as is known."""

    id: str
    folder: Path
    devices: int
    workers: int = 1  # that it was so far
    again: str = ""  # what it said when it last began anew
    requeued: bool = False  # and nobody's worker since
    state: JobState | None = None  # as Slurm said last

    @property
    def has_ended(self) -> bool:
        """Whether it never runs again, as far as is known."""
        return self.state is not None and self.state.has_ended


@dataclass(eq=False)
class SlurmWorker:
    """What a job is at the moment."""

    job: SlurmJob
    channel: Channel
    down: SpoolWriter
    up: SpoolReader
    ear: Ear
    busy: bool = False
    is_here: bool = False  # whether it said something
    last_said: str = ""
    closing: str = ""  # why it is to get no more
    runs_since_s: float | None = None
    gone: str = ""  # why it is
    lost: bool = False  # whether the pool was told that it is

    @property
    def leaves(self) -> bool:
        """Whether it ends by itself."""
        return self.last_said in ENDED or (bool(self.closing) and not self.busy)


class SlurmTransport:
    """See `Transport`."""

    def __init__(
        self,
        config: SlurmExecutorConfig,
        folder: Path,
        jobs: Queue,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder` is for this run alone, and may hold what parents left that were killed."""
        self._config, self._jobs, self._clock = config, jobs, clock
        self._all = folder
        self._spool = folder / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
        self._workers: dict[str, SlurmWorker] = {}
        self._spare: list[SlurmJob] = []  # requeued, and no worker at present
        self._leaving: list[str] = []  # ids of jobs that end by themselves
        self._left: list[Path] = []  # spools of parents that were killed, the last one last
        self._heard_out: list[SpoolReader] = []  # of workers that are no more; what they said last is being dealt with
        self._submitted, self._is_open = 0, False
        self._asked_s = self._listened_s = clock()
        self._closing = threading.Event()
        self.environments: list[dict[str, Any]] = []
        """See `Transport.environments`: nobody knows."""

    @property
    def capacity(self) -> int:
        """See `Transport.capacity`."""
        assert self._config.concurrent_trials is not None, "check_executor refuses null"
        return self._config.concurrent_trials

    def start(self, worker: str, devices: int, begin: bytes, avoid: Sequence[str]) -> None:
        """See `Transport.start`. Raises MachineError where Slurm takes no job, or the folder cannot be written."""
        try:
            job = next((job for job in self._spare if job.devices == devices), None)
            if job is not None:
                self._spare.remove(job)
                job.requeued, job.workers = False, job.workers + 1
                channel = next_channel(job.folder, job.workers, begin)
            else:
                self._open()
                folder = self._spool / f"job-{self._submitted + 1}"
                channel = next_channel(folder, 1, begin)
                job = SlurmJob(self._jobs.submit(folder, self._spool / LOGS, devices, avoid), folder, devices)
                self._submitted += 1
                self._spare.append(job)  # until it is a worker's, `close` ends it
                with (self._spool / IDS).open("a") as ids:
                    ids.write(f"{job.id}\n")
                self._spare.remove(job)
            ear = Ear(channel.pulse, self._clock)
            self._workers[worker] = SlurmWorker(job, channel, SpoolWriter(channel.down), SpoolReader(channel.up), ear)
        except OSError as error:
            raise MachineError(cannot_write(str(self._spool), error, self._all)) from error

    def unheard(self) -> Iterator[bytes]:
        """See `Outliving`."""
        self._open_for_itself()
        for left in self._left:
            for worker in sorted(left.glob("job-*/*/")):
                yield from left_in(Channel(worker).up)

    def forget(self) -> None:
        """See `Outliving`."""
        self._open_for_itself()
        while self._left:
            shutil.rmtree(self._left.pop(), ignore_errors=True)

    def _open_for_itself(self) -> None:
        try:
            self._open()
        except OSError as error:
            raise MachineError(cannot_write(str(self._spool), error, self._all)) from error

    def _open(self) -> None:
        """Make the spool, and end the jobs of parents that were killed. Raises OSError.

        What these said stays until nobody wants it any more, for this parent may be killed too.
        """
        if self._is_open:
            return
        self._is_open = True
        others = (left for left in self._all.glob("*/") if left != self._spool)
        self._left = sorted(others, key=lambda left: left.name.rpartition("-")[2])
        for left in self._left:
            with suppress(OSError):
                self._jobs.cancel((left / IDS).read_text().split())
            for unread in left.glob("job-*/*/down"):  # so a job ends that scancel did not reach
                shutil.rmtree(unread, ignore_errors=True)
        (self._spool / LOGS).mkdir(parents=True, exist_ok=True)
        pulse = Pulse(self._spool / PULSE, self._config.silent_s / BEATS)
        threading.Thread(target=self._beat, args=(pulse,), name="zbench-pulse", daemon=True).start()

    def _beat(self, pulse: Pulse) -> None:
        """Show jobs that this process lives, also while its main thread is busy with something else."""
        while not self._closing.wait(READ_S):
            with suppress(OSError):  # a disk that is full now may have room soon
                pulse.beat()

    def in_queue(self, devices: int) -> str:
        """See `Queueing`: the first job of that size that waits, with Slurm's reason."""
        jobs = (w.job for w in self._workers.values() if not w.is_here and w.job.devices == devices)
        return next((f"job {job.id}: {job.state}" for job in jobs if job.state is not None and job.state.waits), "")

    def send(self, worker: str, message: bytes) -> None:
        """See `Transport.send`."""
        found = self._workers.get(worker)
        if found is None or found.lost:
            return
        found.busy = found.busy or _say(message) == "run"
        try:
            found.down.send(message)
        except OSError as error:
            raise MachineError(cannot_write(str(self._spool), error, self._all, len(message))) from error

    def poll(self, wait_s: float) -> list[Heard | Lost]:
        """See `Transport.poll`."""
        until_s = self._clock() + wait_s
        while self._heard_out:
            self._heard_out.pop().deal_with_all()
        while True:
            self._look()
            words = [word for name in list(self._workers) for word in self._words_of(name)]
            left_s = until_s - self._clock()
            if words or left_s <= 0:
                return words
            time.sleep(min(READ_S, left_s))

    def _words_of(self, name: str) -> list[Heard | Lost]:
        """What a worker said, and that it is gone where it is."""
        worker, words = self._workers[name], list[Heard | Lost]()
        if worker.lost:
            return words
        try:
            for message in worker.up.received():
                worker.is_here, worker.last_said = True, _say(message)
                worker.busy = worker.busy and worker.last_said != "done"
                if worker.last_said == "closing":
                    worker.closing = str(wire.unpacked(message)[0]["why"])
                else:
                    words.append(Heard(name, message))
        except (OSError, ValueError, KeyError) as error:
            worker.gone = f"what job {worker.job.id} said cannot be read: {one_line(error)}"
        if worker.last_said not in ENDED and (worker.gone or worker.leaves):
            worker.lost = True
            words.append(Lost(name, worker.gone or worker.closing, worker.job.requeued))
        return words

    def _look(self) -> None:
        """See who is gone: those that are silent some times a minute, what Slurm says of all jobs less often."""
        now_s = self._clock()
        if now_s - self._listened_s < LISTEN_S:
            return
        self._listened_s = now_s
        here = [worker for worker in self._workers.values() if worker.is_here and not worker.lost]
        silent = [worker for worker in here if worker.ear.silent_s() > self._config.silent_s]
        if silent or now_s - self._asked_s >= self._config.poll_s:
            self._heed(now_s)
            self._asked_s = self._clock()  # a slow answer is no reason to ask sooner
        for worker in silent:
            worker.gone = worker.gone or f"job {worker.job.id} was not heard of for {self._config.silent_s:g} s"

    def _heed(self, now_s: float) -> None:
        """What Slurm says of all jobs, if it says anything.

        Whose channel is taken is seen before Slurm is asked: a job that begins meanwhile may be PENDING in the answer.
        """
        jobs = [*(worker.job for worker in self._workers.values()), *self._spare]
        began = {name for name, worker in self._workers.items() if worker.channel.is_taken}
        states = self._jobs.states(job.id for job in jobs)
        if states is None:
            return
        for job in jobs:
            job.state = states[job.id]
        self._spare = [job for job in self._spare if not job.has_ended]
        for name, worker in self._workers.items():
            worker.gone = worker.gone or self._why_gone(worker, states[worker.job.id], name in began, now_s)

    def _why_gone(self, worker: SlurmWorker, state: JobState, began: bool, now_s: float) -> str:
        """Why a worker is no more, as its job's state shows; empty where it is still to come or is there. `began`: some
        process was it before that state was told."""
        job = worker.job
        if state.has_ended:
            return f"job {job.id} ended: {state}{WAYS_OUT.get(state.state, '')}{last_line(self._spool / LOGS, job.id)}"
        if self._began_again(job) or (state.waits and began):
            job.requeued = True
            return f"Slurm requeued job {job.id}: it was preempted, or its node failed"
        if worker.is_here or state.waits:
            return ""
        worker.runs_since_s = worker.runs_since_s or now_s
        late = now_s - worker.runs_since_s > BEGINS_WITHIN_S
        return f"job {job.id} is {state} and says nothing{last_line(self._spool / LOGS, job.id)}" if late else ""

    def _began_again(self, job: SlurmJob) -> bool:
        """Whether a job said that it is to be a worker that it was before."""
        before = job.again
        with suppress(OSError):
            job.again = (job.folder / AGAIN).read_text()
        return job.again != before

    def kill(self, worker: str) -> None:
        """See `Transport.kill`. A job that Slurm requeued is kept for the next worker of its size."""
        found = self._workers.pop(worker, None)
        if found is None:
            return
        self._heard_out.append(found.up)
        job = found.job
        if job.requeued:
            self._spare.append(job)
        elif found.leaves:
            self._leaving.append(job.id)
            with suppress(OSError):
                found.down.send(GO)
        elif not job.has_ended:
            self._cancel([job.id])
        found.down.close()

    def close(self) -> None:
        """See `Transport.close`."""
        if not self._is_open:
            return
        self._cancel([*(worker.job.id for worker in self._workers.values()), *(job.id for job in self._spare)])
        until_s = self._clock() + LEAVES_WITHIN_S
        while self._leaving and self._clock() < until_s:
            states = self._jobs.states(self._leaving)
            self._leaving = [job for job in self._leaving if states is None or not states[job].has_ended]
            if self._leaving:
                time.sleep(CLOSE_POLL_S)
        self._cancel(self._leaving)
        self._closing.set()
        for worker in self._workers.values():
            worker.down.close()
        self._workers.clear()
        shutil.rmtree(self._spool, ignore_errors=True)
        with suppress(OSError):  # what was not forgotten may be in it
            self._all.rmdir()

    def _cancel(self, ids: Iterable[str]) -> None:
        problem = self._jobs.cancel(ids)
        if problem is not None:
            talk(f"note: {problem}")


def _say(message: bytes) -> str:
    """The kind of a message. Raises ValueError for what is none."""
    kind: str = wire.unpacked(message)[0]["say"]
    return kind
