"""What each rank of a trial on several devices saw. Ranks are never pooled as samples."""

from dataclasses import dataclass, field

from zbench.decode import Count, Seconds


@dataclass(frozen=True)
class RankView:
    """One rank's own view of a request. A request is as slow as its slowest rank."""

    rank: Count
    latency_s: Seconds
    stages_s: dict[str, Seconds] = field(default_factory=dict)
    peak_device_bytes: Count | None = None  # of the rank's process over the window so far
    device: str | None = None  # cuda:1, cpu
    steps_s: list[Seconds] = field(default_factory=list)  # one transformer forward each, in order
    peak_allocated_bytes: Count | None = None  # by torch's allocator on the rank's device, of this request
    peak_reserved_bytes: Count | None = None
    host_peak_rss_bytes: Count | None = None  # of the rank's process so far


@dataclass(frozen=True)
class Communication:
    """What of the forwards of one untimed call was communication, by the profiler on one rank. Seconds.

    Exposed is communication during which no kernel computed on the device.
    """

    rank: Count
    forwards_s: Seconds  # from the end of the first forward to that of the last
    communication_s: Seconds  # in which a collective's kernel ran
    exposed_s: Seconds
