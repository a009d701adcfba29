"""What other programs keep this machine's cores busy, in words; it measures no trial.

Processes are looked at only while others take much: a look at all of them costs some hundredths of a second.
"""

import os

import psutil

from zbench.probes.disturbance import OTHER_LOAD

MOST_NAMED = 3
LEAST_CORES = 0.1
"""Of a process that is named."""


class OthersOnCores:
    """Looks from time to time, and says what it saw between two looks."""

    def __init__(self) -> None:
        self._busy_s = self._own_s = 0.0
        self._at_s: float | None = None
        self._cpu_s: dict[int, float] = {}  # of all processes at the last look, where others took much

    def look(self, now_s: float) -> str | None:
        """What other than this process, and all that it started, keeps cores busy; None where little does."""
        own_pids = _own()
        busy_s = _busy_s()
        own_s = sum(_cpu_s(pid, of_children=True) for pid in own_pids)  # of a worker that ended, too
        before, span_s = self._at_s, now_s - (self._at_s or 0.0)
        taken = (busy_s - self._busy_s) - (own_s - self._own_s)
        self._busy_s, self._own_s, self._at_s = busy_s, own_s, now_s
        cores = psutil.cpu_count() or 1
        if before is None or span_s <= 0 or taken <= OTHER_LOAD * span_s * cores:
            self._cpu_s = {}
            return None
        earlier, self._cpu_s = self._cpu_s, {pid: _cpu_s(pid) for pid in psutil.pids() if pid not in own_pids}
        used = {pid: (s - earlier[pid]) / span_s for pid, s in self._cpu_s.items() if pid in earlier}
        busiest = sorted((pid for pid in used if used[pid] >= LEAST_CORES), key=lambda pid: -used[pid])
        by = f"{len(busiest)} other process{'es' if len(busiest) > 1 else ''}" if busiest else "other programs"
        verb = "uses" if len(busiest) == 1 else "use"
        return f"{by} {verb} {taken / span_s:.1f} of {cores} cores{_named(busiest)}"


def _named(pids: list[int]) -> str:
    named = [f"{_name(pid)} (pid {pid})" for pid in pids[:MOST_NAMED]]
    return f": {', '.join(named)}{' …' if len(pids) > MOST_NAMED else ''}" if named else ""


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "one that is gone"


def _busy_s() -> float:
    cpu = psutil.cpu_times()
    return float(sum(getattr(cpu, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))


def _cpu_s(pid: int, *, of_children: bool = False) -> float:
    """User and system seconds; also those of its children that are gone, if wanted."""
    try:
        return float(sum(psutil.Process(pid).cpu_times()[: 4 if of_children else 2]))
    except psutil.Error:
        return 0.0


def _own() -> set[int]:
    try:
        return {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    except psutil.Error:
        return {os.getpid()}
