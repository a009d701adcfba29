"""Peak host memory and peak allocator memory of a block of code; it leaves the device's own view to `probes.device`."""

import resource
import sys
from pathlib import Path
from typing import Any

SINCE_START = "since_process_start"
"""Reason given for a host peak that covers the process's whole life because the kernel would not reset it."""

_PROC = Path("/proc/self")


class MemoryProbe:
    """Peaks between `start` and `stop`."""

    def __init__(self, cuda: Any | None = None, proc: Path = _PROC) -> None:
        """`cuda` is `torch.cuda` where the pipeline runs on it, else None."""
        self._cuda = cuda
        self._proc = proc
        self._was_reset = False

    def start(self) -> None:
        """Reset the peaks to what is held now."""
        self._was_reset = self._reset_host_peak()
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()

    def stop(self) -> tuple[dict[str, int | None], dict[str, str]]:
        """Peaks in bytes, named as the fields of `measurement.Memory`, and the reasons behind what they lack."""
        host, reasons = self._host_peak_bytes()
        peaks: dict[str, int | None] = {
            "peak_allocated_bytes": None,
            "peak_reserved_bytes": None,
            "host_peak_rss_bytes": host,
        }
        if self._cuda is not None:
            peaks["peak_allocated_bytes"] = int(self._cuda.max_memory_allocated())
            peaks["peak_reserved_bytes"] = int(self._cuda.max_memory_reserved())
        else:
            reasons |= {"memory.peak_allocated_bytes": "no_gpu", "memory.peak_reserved_bytes": "no_gpu"}
        return peaks, reasons

    def _reset_host_peak(self) -> bool:
        """Writing 5 to clear_refs resets VmHWM to the resident size (proc(5)); some containers forbid it."""
        try:
            (self._proc / "clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def _host_peak_bytes(self) -> tuple[int, dict[str, str]]:
        if self._was_reset and (peak := _status_bytes(self._proc / "status", "VmHWM")) is not None:
            return peak, {}
        return _rusage_peak_bytes(), {"memory.host_peak_rss_bytes": SINCE_START}


def device_memory() -> dict[str, int] | None:
    """Bytes on the current CUDA device now: `allocated` and `reserved` by torch, their peaks, `free` and `total` on the
    device. None where torch was not imported or has no device."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info()
    return {
        "allocated": int(torch.cuda.memory_allocated()),
        "reserved": int(torch.cuda.memory_reserved()),
        "peak_allocated": int(torch.cuda.max_memory_allocated()),
        "peak_reserved": int(torch.cuda.max_memory_reserved()),
        "free": int(free),
        "total": int(total),
    }


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
