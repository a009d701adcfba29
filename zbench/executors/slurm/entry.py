"""What a job runs: a node of the pool, until its parent has no more for it, its parent is gone, or its time is up.

The main thread measures; another carries messages. SIGUSR2, which comes ahead of the job's end, has it say that it is
to get no more tasks; what it measures goes on as long as it may. SIGTERM, which comes before Slurm kills a job, ends it
at once with all that it started.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from zbench.executors.remote import wire
from zbench.executors.remote.node import NodeAtWork
from zbench.executors.remote.spool import Ear, Pulse, SpoolReader, SpoolWriter
from zbench.executors.slurm.channel import AGAIN, PULSE, Channel, channel_now

READ_S = 0.2
"""Between two looks at what the parent says."""

BEATS = 8
"""So often the pulse beats in the time after which silence counts."""

UNWANTED_S = 60.0
"""So long a job that was requeued waits for a parent that needs it again."""

ENDS_WITHIN_S = 15.0
"""How long a worker may take to end once its parent is gone."""

LEAVE, GO = (wire.packed({"say": word}) for word in ("leave", "go"))

PLACED_BY = {"slurm_job": "SLURM_JOB_ID", "partition": "SLURM_JOB_PARTITION", "gpus": "SLURM_GPUS_ON_NODE"}
"""What each record says of its job, and the variables that Slurm tells it by."""

TIME_IS_UP = "its job's time is nearly up (executor.time_min)"
ONE_TASK = "a job takes one task (executor.mode=job_per_task)"


def run(folder: str, silent_s: float, devices: int, one_task: bool) -> None:
    """`folder` is the job's; the parent is gone when it was silent for `silent_s`. `one_task`: it takes no other."""
    job, parent = Path(folder), Ear(Path(folder).parent / PULSE)
    if not devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a node may show GPUs that nobody asked for
    channel = _own_channel(job, parent, silent_s)
    if channel is None:
        print("no parent wants this job any more", flush=True)
        return
    JobAtWork(channel, parent, silent_s, one_task=one_task).work()


def _own_channel(job: Path, parent: Ear, silent_s: float) -> Channel | None:
    """The worker that this job is to be; None where nobody needs it, or nobody is there."""
    began_s = time.monotonic()
    try:
        while not (channel := channel_now(job)).take():
            (job / AGAIN).write_text(f"{_node()} {os.getpid()}\n")
            waited_s = time.monotonic() - began_s
            if parent.silent_s() > silent_s or waited_s > UNWANTED_S:
                return None
            time.sleep(READ_S)
    except OSError:  # the parent removed the folder
        return None
    return channel


def _node() -> str:
    """The name by which Slurm knows this machine."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


class JobAtWork:
    """One worker of a pool, in its job."""

    def __init__(self, channel: Channel, parent: Ear, silent_s: float, *, one_task: bool) -> None:
        self._parent, self._silent_s, self._one_task = parent, silent_s, one_task
        self._up, self._down = SpoolWriter(channel.up), SpoolReader(channel.down)
        self._pulse = Pulse(channel.pulse, silent_s / BEATS)
        placed = {name: os.environ.get(variable) for name, variable in PLACED_BY.items()}
        self._node = NodeAtWork(channel.begin, self._say, name=_node(), about={"placed_by": placed})
        self._is_alone = False  # whether nobody is to hear any more
        self._over = threading.Event()

    def work(self) -> None:
        """Until it is over. Raises OSError where the spool cannot be written."""
        signal.signal(signal.SIGTERM, _end)
        threading.Thread(target=self._carry, args=(_ahead_of_the_end(),), name="zbench-spool", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # for what this thread starts, see below
        self._node.work()
        self._over.set()

    def _say(self, message: bytes) -> None:
        if self._is_alone:  # a parent that comes back takes this worker for lost, and is right
            return
        if self._one_task and wire.unpacked(message)[0]["say"] == "done":
            self._up.send(wire.packed({"say": "closing", "why": ONE_TASK}))  # before it, so that no other task comes
        self._up.send(message)

    def _carry(self, time_is_nearly_up: Callable[[], bool]) -> None:
        """Hear the parent, and be heard, until the work is over or nobody listens any more."""
        told = False
        try:
            while not self._over.wait(READ_S):
                self._pulse.beat()
                for message in self._down.received():
                    self._node.hear(LEAVE if message == GO else message)
                if not told and time_is_nearly_up():
                    told = True
                    self._up.send(wire.packed({"say": "closing", "why": TIME_IS_UP}))
                if self._parent.silent_s() > self._silent_s:
                    print(f"the parent was not heard of for {self._silent_s:g} s", flush=True)
                    break
        except (OSError, ValueError) as error:
            print(f"the spool cannot be used any more: {error}", flush=True)
        self._is_alone = True
        if not self._over.is_set():
            self._node.hear(LEAVE)
            if not self._over.wait(ENDS_WITHIN_S):
                os._exit(1)  # the kernel ends its workers


def _ahead_of_the_end() -> Callable[[], bool]:
    """Whether SIGUSR2 came.

    Slurm sends it to all processes of the job, and it would end a worker. So the thread that starts them blocks it, as
    they do then too. Here it may reach another thread; what tells of it is a pipe, for the main thread may sleep.
    """
    reads, writes = os.pipe()
    for end in (reads, writes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGUSR2, lambda number, frame: None)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)

    def came() -> bool:
        with suppress(BlockingIOError):
            return int(signal.SIGUSR2) in os.read(reads, 1024)
        return False

    return came


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
