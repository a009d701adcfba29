"""A Slurm that does what a test says, the jobs that run in it, and words that they exchange with a pool."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zbench.config import SlurmExecutorConfig
from zbench.executors.remote import Lost, wire
from zbench.executors.remote.spool import Pulse, SpoolReader, SpoolWriter
from zbench.executors.slurm.channel import Channel, channel_now
from zbench.executors.slurm.queue import GONE, JobState
from zbench.executors.slurm.transport import SlurmTransport

CONFIG = SlurmExecutorConfig(name="slurm", target="", concurrent_trials=4, silent_s=30.0, poll_s=10.0)
BEGIN = wire.packed({"say": "begin"})
RUN, DONE, BYE = (wire.packed({"say": word}) for word in ("run", "done", "bye"))
CLOSING = wire.packed({"say": "closing", "why": "its time is nearly up"})


class ScriptedSlurm:
    """What a test says that Slurm does."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.known: dict[str, JobState] = {}
        self.folders: dict[str, Path] = {}
        self.asked: list[tuple[int, list[str]]] = []
        self.cancelled: list[str] = []
        self.questions = 0
        self.answers = True
        self.meanwhile: Callable[[], object] = lambda: None  # what happens between a question and its answer

    def clock(self) -> float:
        self.now_s += 0.01
        return self.now_s

    def submit(self, folder: Path, prints: Path, devices: int, avoid: Sequence[str]) -> str:
        job = str(len(self.asked) + 1)
        self.asked.append((devices, list(avoid)))
        self.known[job], self.folders[job] = JobState("PENDING", "Priority"), folder
        return job

    def states(self, ids: Iterable[str]) -> dict[str, JobState] | None:
        self.questions += 1
        said = {job: self.known.get(job, JobState(GONE)) for job in ids} if self.answers else None
        self.meanwhile()
        return said

    def cancel(self, ids: Iterable[str]) -> str | None:
        self.cancelled += (ended := list(ids))
        self.known |= {job: JobState("CANCELLED") for job in ended}
        return None

    def begins(self, job: str) -> "Node":
        """On a node, perhaps once more."""
        self.known[job] = JobState("RUNNING", "None", "n1")
        channel = channel_now(self.folders[job])
        assert channel.take()
        return Node(channel, self)


class Node:
    """A job's side of its channel."""

    def __init__(self, channel: Channel, slurm: ScriptedSlurm) -> None:
        self.begin = channel.begin
        self._up, self._down = SpoolWriter(channel.up), SpoolReader(channel.down)
        self.pulse = Pulse(channel.pulse, 1.0, slurm.clock)

    def say(self, *messages: bytes) -> None:
        for message in messages:
            self._up.send(message)

    def heard(self) -> list[bytes]:
        return list(self._down.received())


def lost_after(transport: SlurmTransport, slurm: ScriptedSlurm, seconds: float) -> list[str]:
    """Why workers are lost, once some time has passed."""
    slurm.now_s += seconds
    return [word.why for word in transport.poll(0.0) if isinstance(word, Lost)]
