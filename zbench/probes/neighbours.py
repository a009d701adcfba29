"""Who else computes on a device: neither the trial's processes nor what they started. It never claims what a container
hides.

Where none of these is among those that the driver lists, one of the PIDs listed may be theirs by another number, so
that who else is there is unknown. The driver lists whoever holds a context, busy or idle; where it also says
whose kernels ran of late, the idle do not count. That answer may leave out a busy process: beside one that multiplied
matrices without a pause it did so for 1.8 s on an H100 (reports/h100/neighbours).
"""

import math
import time
from collections.abc import Callable, Collection

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

    def __init__(
        self, nvml: Nvml, index: int, pids: Collection[int], clock_s: Callable[[], float] = time.perf_counter
    ) -> None:
        """`index` is NVML's, `pids` are the trial's processes."""
        self._nvml, self._index, self._pids, self._clock_s = nvml, index, frozenset(pids), clock_s
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
        computing, listed = self._nvml.compute_pids(self._index), set(self._nvml.processes(self._index))
        own = listed & self._pids or {pid for pid in listed if self._is_descendant(pid)}
        if not own:
            return None if computing else set()
        foreign = {pid for pid in computing - own - self._pids if not self._is_descendant(pid)}
        busy = self._nvml.busy_pids(self._index, round((time.time() - RECENT_S) * 1e6)) if foreign else None
        if busy is None or not own & busy:  # an answer that leaves out the trial's own says nothing of others
            return foreign
        return foreign & busy

    def _is_descendant(self, pid: int) -> bool:
        try:
            return any(parent.pid in self._pids for parent in psutil.Process(pid).parents())
        except psutil.Error:  # it is gone, or not ours to look at
            return False
