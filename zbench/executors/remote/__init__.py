"""Trials on other machines: a `pool` here hands out tasks and takes results, a `node` there measures.

`wire` has their words and `freight` carries images with them. How bytes get there and back is a `Transport`'s business:
`ray` has one over actors. Placement, queues and the life of machines are Ray's or Slurm's own; zbench writes no
scheduler. A node measures by a `LocalExecutor`, as this machine would: in turn on its devices, with time-outs.

A new kind of cluster is one `Transport`, and one class over `RemotePool` that hands it on and knows its devices
(`executors.OnACluster`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Heard:
    """What a node said."""

    worker: str  # by the name that it was started with
    message: bytes  # as `wire.packed` made it


@dataclass(frozen=True)
class Lost:
    """A worker is gone, or never came, and takes nothing any more."""

    worker: str
    why: str  # one line
    requeued: bool = False  # whether its cluster took its machine away, for others perhaps, and queues it anew


class Transport(Protocol):
    """Starts workers on other machines and carries messages both ways, each in its order; it decides nothing else.

    All is called by one thread. A method raises MachineError where the whole cluster is out of reach, and nothing else;
    what happens to one worker comes by `poll`.
    """

    @property
    def capacity(self) -> int:
        """How many workers it may have at once, 1 or more."""
        ...

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Where workers may be, as far as that is known before one has started; see `Executor.environments`."""
        ...

    def start(self, worker: str, devices: int, begin: bytes, avoid: Sequence[str]) -> None:
        """Ask for a worker on one machine, with so many GPUs for itself; 0: none is to be seen by it.

        Returns at once: it may wait in a queue. There it is to make a `node.NodeAtWork` of `begin`, whose first message
        is its hello. `avoid`: names of nodes where it had better not be, if it can be elsewhere.
        """
        ...

    def send(self, worker: str, message: bytes) -> None:
        """For the node's `hear`. Where the worker is gone nothing happens, and `poll` tells."""
        ...

    def poll(self, wait_s: float) -> list[Heard | Lost]:
        """What came since, after `wait_s` at most; of a worker that was killed by `kill` nothing need come."""
        ...

    def kill(self, worker: str) -> None:
        """End it now with all that it started, or take it out of the queue. May be called twice."""
        ...

    def close(self) -> None:
        """Let the cluster go, and end every worker that is left; nothing stays in a queue."""
        ...


@runtime_checkable
class Queueing(Protocol):
    """What a transport may be too, where workers wait in a queue that says why."""

    def in_queue(self, devices: int) -> str:
        """Why workers with so many GPUs have not come yet, in a few words; empty where that is not known."""
        ...


@runtime_checkable
class Outliving(Protocol):
    """What a transport may be too, where what workers said is kept though nobody was there any more to hear it."""

    def unheard(self) -> Iterator[bytes]:
        """What workers said to pools of this run that were killed, as far as it is there yet; those end now.

        Some of it may have been heard. Raises as the methods of `Transport`.
        """
        ...

    def forget(self) -> None:
        """Remove all that. Until then pools that come later may ask for it. Raises as the methods of `Transport`."""
        ...
