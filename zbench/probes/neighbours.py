"""Who else computes on a device: neither this process nor what it started. It never claims what a container hides.

Where this process itself is not among those that the driver lists, one of the PIDs listed may be its own by another
number, so that who else is there is unknown. The driver lists whoever holds a context, busy or idle; where it also says
whose kernels ran of late, the idle do not count.
"""

import math
import time
from collections.abc import Callable

import psutil

from zbench.hardware.nvml import Nvml

EVERY_S = 0.5
"""Least time between two looks of `look_if_due`; an answer stands for as long."""

RECENT_S = 1.0
"""How far back a process's kernels make it busy."""

REMEMBERED_S = 5.0
"""How long one who was seen counts, as a look may miss a process: beside one that multiplied matrices without a pause,
all looks of one round of 1.8 s in three did (reports/h100/neighbours)."""


class Neighbours:
    """Looks from time to time, and answers for spans of its clock."""

    def __init__(self, nvml: Nvml, index: int, pid: int, clock_s: Callable[[], float] = time.perf_counter) -> None:
        """`index` is NVML's, `pid` this process's."""
        self._nvml, self._index, self._pid, self._clock_s = nvml, index, pid, clock_s
        self._looks: list[tuple[float, set[int] | None]] = []

    def start(self) -> None:
        """Forget former looks and take one."""
        self._looks = []
        self.look()

    def look(self) -> None:
        """Ask the driver now."""
        self._looks.append((self._clock_s(), self._others()))

    def look_if_due(self) -> None:
        """Ask unless that was done a moment ago."""
        if not self._looks or self._clock_s() - self._looks[-1][0] >= EVERY_S:
            self.look()

    def seen(self, began_s: float = -math.inf, ended_s: float = math.inf) -> set[int] | None:
        """PIDs seen at any time of the span or shortly before; None if none was and some look could not tell.

        A span without a look takes the answer before it if that still stands, and else looks now.
        """
        if not any(began_s <= at_s <= ended_s for at_s, _ in self._looks):
            self.look_if_due()
            ended_s = math.inf
        looks = [others for at_s, others in self._looks if began_s - REMEMBERED_S <= at_s <= ended_s]
        found = set[int]().union(*(others for others in looks if others is not None))
        return None if not found and None in looks else found

    def _others(self) -> set[int] | None:
        computing = self._nvml.compute_pids(self._index)
        if self._pid not in self._nvml.processes(self._index):
            return None if computing else set()
        foreign = {pid for pid in computing - {self._pid} if not self._is_descendant(pid)}
        busy = self._nvml.busy_pids(self._index, round((time.time() - RECENT_S) * 1e6)) if foreign else None
        if busy is None or self._pid not in busy:  # an answer that leaves out this process says nothing of others
            return foreign
        return foreign & busy

    def _is_descendant(self, pid: int) -> bool:
        try:
            return any(parent.pid == self._pid for parent in psutil.Process(pid).parents())
        except psutil.Error:  # it is gone, or not ours to look at
            return False
