"""A stand-in for an allocator of device memory, which never does anything but count its resets."""

import os

from fake_nvml import GIB

from zbench.probes.watched import Watched


class FakeAllocator:
    def __init__(self) -> None:
        self.resets = 0

    def reset_peaks(self) -> None:
        self.resets += 1

    def peak_allocated_bytes(self) -> int:
        return 3 * GIB

    def peak_reserved_bytes(self) -> int:
        return 4 * GIB

    def now(self) -> dict[str, int]:
        return {"allocated": 3 * GIB, "reserved": 4 * GIB}


def on_gpu(context_bytes: int | None = None, devices: tuple[int, ...] = (0,)) -> Watched:
    """This process on a GPU."""
    return Watched((os.getpid(),), devices, FakeAllocator(), context_bytes)


ON_HOST = Watched((os.getpid(),))
