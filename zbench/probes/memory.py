"""Peak host memory and peak allocator memory of a block of code; it leaves the device's own view to `probes.device`.

Host memory is that of the processes watched. Of one that is not this one, what it started counts as well: a server is
many processes. Each peak is a process's own, so their sum is no less than what all held at one time, and pages that
they share count in each. A process that ended before `stop` is not seen.
"""

import os
import resource
import sys
from pathlib import Path

import psutil

from zbench.probes.watched import Watched

SINCE_START = "since_process_start"
"""Reason given for a host peak that covers the process's whole life because the kernel would not reset it."""

PID_HIDDEN = "pid_hidden"
"""Reason given for a host peak of processes that cannot be looked at."""

_PROC = Path("/proc")


class MemoryProbe:
    """Peaks between `start` and `stop`."""

    def __init__(self, watched: Watched | None = None, proc: Path = _PROC) -> None:
        """By default this process, on a host."""
        self._watched = Watched((os.getpid(),)) if watched is None else watched
        self._proc = proc
        self._was_reset: dict[int, bool] = {}

    def start(self) -> None:
        """Reset the peaks to what is held now."""
        self._was_reset = {pid: self._reset_host_peak(pid) for pid in self._processes()}
        if self._watched.allocator is not None:
            self._watched.allocator.reset_peaks()

    def stop(self) -> tuple[dict[str, int | None], dict[str, str]]:
        """Peaks in bytes, named as the fields of `measurement.Memory`, and the reasons behind what they lack."""
        host, reasons = self._host_peak_bytes()
        peaks: dict[str, int | None] = {
            "peak_allocated_bytes": None,
            "peak_reserved_bytes": None,
            "host_peak_rss_bytes": host,
        }
        allocator = self._watched.allocator
        if allocator is not None:
            peaks["peak_allocated_bytes"] = allocator.peak_allocated_bytes()
            peaks["peak_reserved_bytes"] = allocator.peak_reserved_bytes()
        else:
            why = "no_allocator" if self._watched.devices else self._watched.unseen or "no_gpu"
            reasons |= {"memory.peak_allocated_bytes": why, "memory.peak_reserved_bytes": why}
        return peaks, reasons

    def _processes(self) -> set[int]:
        """The processes watched, and what those but this one started."""
        found = set(self._watched.pids)
        for pid in found - {os.getpid()}:
            try:
                found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
            except psutil.Error:  # it is gone, which `_host_peak_bytes` sees
                continue
        return found

    def _reset_host_peak(self, pid: int) -> bool:
        """Writing 5 to clear_refs resets VmHWM to the resident size (proc(5)); some containers forbid it."""
        try:
            (self._proc / str(pid) / "clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def _host_peak_bytes(self) -> tuple[int | None, dict[str, str]]:
        """A process that is gone, but for those that were named, held nothing."""
        place, total, whole = "memory.host_peak_rss_bytes", 0, True
        if not self._watched.pids:
            return None, {place: self._watched.unseen or PID_HIDDEN}
        for pid in self._processes():
            since_start = not self._was_reset.get(pid, True)  # one that came later has no other life
            peak = None
            if pid != os.getpid() or not since_start:
                peak = _status_bytes(self._proc / str(pid) / "status", "VmHWM")
            if peak is None and pid == os.getpid():
                peak, since_start = _rusage_peak_bytes(), True
            if peak is None and pid in self._watched.pids:
                return None, {place: PID_HIDDEN}
            total, whole = total + (peak or 0), whole and not since_start
        return total, {} if whole else {place: SINCE_START}


def oom_kills() -> int:
    """Processes the kernel has killed for memory since it booted (proc(5), vmstat); 0 where it does not say."""
    try:
        lines = (_PROC / "vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def own_peak_rss_bytes() -> int:
    """Most that this process held in host memory, since it started or since a probe last reset it."""
    peak = _status_bytes(_PROC / "self" / "status", "VmHWM")
    return _rusage_peak_bytes() if peak is None else peak


def _status_bytes(status: Path, key: str) -> int | None:
    """A `key:   123 kB` line of /proc/PID/status, in bytes."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def _rusage_peak_bytes() -> int:
    """`ru_maxrss` is in KiB on Linux and in bytes on macOS (getrusage(2))."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
