"""Who else computes on a device: neither the trial's processes nor what they started. It never claims what a container
hides.

Where none of these is among those that the driver lists, one of the PIDs listed may be theirs by another number, so
that who else is there is unknown. The driver lists whoever holds a context, busy or idle; where it also says
whose kernels ran of late, the idle do not count. That answer may leave out a busy process: beside one that multiplied
matrices without a pause it did so for 1.8 s on an H100 (reports/h100/neighbours).

A list is of one moment. What the driver says of kernels since the last look is therefore asked as well, so that one
that came and went between two looks is seen too.
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
        self._own: set[int] = set()  # seen to be the trial's, some of which may be gone by now
        self._since_us = 0  # what ran before has been looked at, or was before the block

    def start(self) -> None:
        """Forget former looks and take one."""
        self._looks, self._since_us = [], _now_us()
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
        self._own |= own
        if not own:
            return None if computing else set()
        visitors = self._ran_since_the_last_look() - listed
        foreign = {pid for pid in computing - own - self._pids if not self._is_descendant(pid)}
        busy = self._nvml.busy_pids(self._index, _now_us() - round(RECENT_S * 1e6)) if foreign else None
        if busy is None or not own & busy:  # an answer that leaves out the trial's own says nothing of others
            return foreign | visitors
        return foreign & busy | visitors

    def _ran_since_the_last_look(self) -> set[int]:
        """Other processes whose kernels ran, whether they are still there or not."""
        since_us, self._since_us = self._since_us, _now_us()
        ran = self._nvml.busy_pids(self._index, since_us) or set()
        return {pid for pid in ran - self._own - self._pids if not self._is_descendant(pid)}

    def _is_descendant(self, pid: int) -> bool:
        try:
            return any(parent.pid in self._pids for parent in psutil.Process(pid).parents())
        except psutil.Error:  # it is gone, or not ours to look at
            return False


def _now_us() -> int:
    return round(time.time() * 1e6)
