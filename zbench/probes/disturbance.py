"""What happened to the host during one round that is not the round's own doing; such a round is marked, not dropped.

One alone is worth nothing: where the process was stopped meanwhile (`SUSPENDED`), its time is not the round's.

Read before and after a round, outside its clock. Thresholds are far above what an idle machine shows.
"""

import gc
import os
import resource
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

import psutil

from zbench.measurement import SUSPENDED

ASLEEP_S = 0.05  # the machine, which its monotonic clock leaves out and the one since boot counts

OTHER_LOAD = 0.125  # share of the machine's cores that others kept busy, on average over the round
STOLEN = 0.05  # share of the machine's cores that its host gave to others
SLOWER_CLOCK = 0.9  # of the highest CPU frequency seen so far
CLOCK_STEP_S = 0.1
TICK_S = 0.02  # a core: the kernel counts CPU time in ticks of 10 ms; differences below two of them mean nothing


@dataclass(frozen=True)
class HostState:
    """Counters of this process and of the machine. Seconds; `frequency_mhz` is None where the kernel hides it."""

    monotonic_s: float
    wall_s: float
    collections: int  # by the garbage collector, of any generation
    major_faults: int  # pages of this process read from disk
    own_cpu_s: float  # of all threads of this process and of those that work with it
    busy_cpu_s: float  # of all cores, whoever used them
    stolen_cpu_s: float
    cores: int
    frequency_mhz: float | None
    asleep_s: float = 0.0  # of the machine, since it booted
    continued: int = 0  # how often this process was told to go on (SIGCONT)


def host_state(fellows: Collection[int] = ()) -> HostState:
    """The counters now; takes a tenth of a millisecond, and some more for each core that shows its frequency.

    `fellows` are the ids of other processes that work for the same trial: what they compute is no other's load.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = psutil.cpu_times()
    busy = sum(getattr(cpu, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return HostState(
        monotonic_s=time.monotonic(),
        wall_s=time.time(),
        collections=sum(generation["collections"] for generation in gc.get_stats()),
        major_faults=usage.ru_majflt,
        own_cpu_s=usage.ru_utime + usage.ru_stime + sum(map(_cpu_s, fellows)),
        busy_cpu_s=busy,
        stolen_cpu_s=getattr(cpu, "steal", 0.0),
        cores=psutil.cpu_count() or 1,
        frequency_mhz=_frequency_mhz(),
        asleep_s=_asleep_s(),
        continued=_continued,
    )


def disturbances(before: HostState, after: HostState, highest_mhz: float | None = None) -> list[str]:
    """What disturbed the round between two states: names, none for a quiet one.

    `suspended`, `garbage_collection`, `page_faults` (major), `other_load`, `stolen_time`, `cpu_frequency` (against
    `highest_mhz`) and `clock_step` (the wall clock was set, which `started_at` shows and latencies do not).
    """
    span_s = after.monotonic_s - before.monotonic_s
    others_s = (after.busy_cpu_s - before.busy_cpu_s) - (after.own_cpu_s - before.own_cpu_s)
    stolen_s = after.stolen_cpu_s - before.stolen_cpu_s
    slept = after.asleep_s - before.asleep_s > ASLEEP_S
    found = {
        SUSPENDED: slept or after.continued > before.continued,
        "garbage_collection": after.collections > before.collections,
        "page_faults": after.major_faults > before.major_faults,
        "other_load": others_s > (OTHER_LOAD * span_s + TICK_S) * after.cores,
        "stolen_time": stolen_s > (STOLEN * span_s + TICK_S) * after.cores,
        "cpu_frequency": bool(highest_mhz and after.frequency_mhz and after.frequency_mhz < SLOWER_CLOCK * highest_mhz),
        "clock_step": abs((after.wall_s - before.wall_s) - span_s) > CLOCK_STEP_S,
    }
    return [name for name, happened in found.items() if happened]


class RoundWatch:
    """Watches one round after another of a block."""

    def __init__(self, pids: Collection[int] = ()) -> None:
        """From now on SIGCONT is counted; Python lets only the main thread ask for that.

        `pids` are the processes that make the round; this one need not be among them.
        """
        with suppress(ValueError):
            signal.signal(signal.SIGCONT, _count_continued)
        self._fellows = tuple(pid for pid in pids if pid != os.getpid())
        self._before = host_state(self._fellows)
        self._highest_mhz: float | None = None

    def begin(self) -> None:
        """A round is about to start."""
        self._before = host_state(self._fellows)

    def end(self) -> list[str]:
        """What disturbed it."""
        after = host_state(self._fellows)
        seen = [f for f in (self._highest_mhz, self._before.frequency_mhz, after.frequency_mhz) if f]
        self._highest_mhz = max(seen, default=None)
        return disturbances(self._before, after, self._highest_mhz)


_continued = 0


def _count_continued(number: int, frame: FrameType | None) -> None:
    """Signal handler; where native code was stopped it runs once that is left, before the round is over."""
    global _continued
    _continued += 1


def _cpu_s(pid: int) -> float:
    """Seconds that a process has computed; 0 of one that is gone or hidden."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _asleep_s() -> float:
    """Seconds that the machine slept since it booted; 0 where no clock counts them."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _frequency_mhz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError):  # some virtual machines have no such file
        return None
    return None if frequency is None else float(frequency.current) or None
