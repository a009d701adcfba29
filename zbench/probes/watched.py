"""What gauges are to watch, as an engine says it: processes, devices, an allocator. It measures nothing itself."""

from dataclasses import dataclass
from typing import Protocol


class Allocator(Protocol):
    """A library's own account of the device memory that this process holds through it. Sizes in bytes."""

    def reset_peaks(self) -> None:
        """Peaks begin anew from what is held now."""
        ...

    def peak_allocated_bytes(self) -> int:
        """Most that tensors took since the last reset."""
        ...

    def peak_reserved_bytes(self) -> int:
        """Most that was taken from the device since the last reset."""
        ...

    def now(self) -> dict[str, int]:
        """`allocated` and `reserved` now, `peak_allocated` and `peak_reserved`, `free` and `total` of the device."""
        ...


@dataclass(frozen=True)
class Watched:
    """What an engine runs on.

    `pids` are the processes that work for the trial: this one, a server, the ranks. Name each that holds device memory;
    what they started is no neighbour of theirs, and its device memory is not counted.
    """

    pids: tuple[int, ...]
    devices: tuple[int, ...] = ()  # NVML's indices; empty: a host, or NVML does not know the device
    allocator: Allocator | None = None  # None: there is none, or it is another process's
    context_bytes: int | None = None  # what the process held on its device before anything was loaded
    unseen: str | None = None  # why nothing of it can be watched, or none of its device: `server_elsewhere`, …
