"""Who else computes on a device: neither this process nor what it started. It never claims what a container hides.

Where this process itself is not among those that the driver lists, one of the PIDs listed may be its own by another
number, so that who else is there is unknown. The driver lists whoever holds a context, busy or idle; where it also says
whose kernels ran of late, the idle do not count. That answer may leave out a busy process: beside one that multiplied
matrices without a pause it did so for 1.8 s on an H100 (reports/h100/neighbours).
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
"""How long one that was seen counts."""


class Neighbours:
    """Looks from time to time, and answers for what has just passed."""

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

    def seen(self, began_s: float = -math.inf) -> set[int] | None:
        """PIDs seen from `began_s`, or shortly before, until now; None if none was and some look could not tell."""
        self.look_if_due()
        looks = [others for at_s, others in self._looks if at_s >= began_s - REMEMBERED_S]
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
