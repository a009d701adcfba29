"""What a pool keeps of each of its workers, and of each task until that has ended; it decides nothing."""

from dataclasses import dataclass, field
from typing import Any

from zbench.executors import Disrupted, Failed, Stopped, Task, TaskResult
from zbench.methods.parallel import ParallelDims
from zbench.record import Reason


@dataclass(eq=False)
class HeldTask:
    """A task that a pool was given."""

    task: Task
    submitted_s: float
    lost: int = 0  # how often a worker, or its machine, was lost with it
    requeued: int = 0  # how often its worker was queued anew instead
    avoid: tuple[str, ...] = ()  # names of the nodes where that was
    turn_of: str | None = None  # id of the trial that was heard of last
    beside: dict[str, None] = field(default_factory=dict)  # ids of trials that ran on the same machine meanwhile
    waits: str = ""  # what was said last of what it waits for

    @property
    def devices(self) -> int:
        """GPUs that it needs; 0: it computes on a CPU, or a server elsewhere does it."""
        trial = self.task.settings[0].trial
        return ParallelDims.of(trial.parallel).devices if trial.compute.device == "cuda" else 0

    @property
    def ids(self) -> list[str]:
        """Of its trials."""
        return [setting.trial.trial_id for setting in self.task.settings]

    @property
    def stopped(self) -> tuple[TaskResult, ...]:
        """The results of one that nobody measures."""
        return (Stopped(),) * len(self.task.settings)

    def blamed(self, reason: Reason) -> tuple[TaskResult, ...]:
        """Those of one that failed on the trial whose turn it was: the others are to be tried without it."""
        turn_of = self.turn_of or self.ids[0]
        return tuple(Failed(reason) if trial_id == turn_of else Disrupted() for trial_id in self.ids)


@dataclass(eq=False)
class RemoteWorker:
    """A worker that a pool asked for."""

    name: str
    devices: int
    asked_s: float
    is_here: bool = False  # whether it said hello
    node: str = ""  # the name of its machine
    environment: dict[str, Any] | None = None
    process: str | None = None  # residency of what it ran last
    references: set[str] = field(default_factory=set)  # names of those that were sent to it
    held: HeldTask | None = None
    told_to_stop: bool = False
    leaves_s: float | None = None  # since when it is asked to leave

    @property
    def is_idle(self) -> bool:
        """Whether it could take a task now."""
        return self.is_here and self.held is None and self.leaves_s is None
