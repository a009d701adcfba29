"""What a window drew of its machine: memory at most, and energy."""

from dataclasses import dataclass

from zbench.decode import Count, Figure


@dataclass(frozen=True)
class Memory:
    """Peaks over a window. Device figures are torch's allocator and NVML's view of this process."""

    peak_allocated_bytes: Count | None = None
    peak_reserved_bytes: Count | None = None
    peak_device_bytes: Count | None = None
    host_peak_rss_bytes: Count | None = None


@dataclass(frozen=True)
class Energy:
    """Energy of a whole window; null for windows under 10 s."""

    joules: Figure
    requests: Count
    method: str  # counter, or integrated power
