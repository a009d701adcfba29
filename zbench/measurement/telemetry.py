"""What gauges saw over a window, and what two instruments said of the same thing."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from zbench.decode import Count, Figure, Seconds, Whole

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

OWN_LIMIT = "sw_power_cap"
"""The one throttle reason that says nothing against a request: the device keeps to its power limit, as an H100 at its
full 700 W does in most samples while this pipeline computes."""


@dataclass(frozen=True)
class ClockCheck:
    """One generation by the host's clock and by the device's."""

    host_s: Seconds
    device_s: Seconds
    rel_difference: Figure


@dataclass(frozen=True)
class MemoryCheck:
    """Peaks of one window as torch's allocator and as NVML saw them."""

    torch_reserved_bytes: Count
    nvml_process_bytes: Count
    context_bytes: Whole
    rel_difference: Figure
    method: str | None  # how NVML saw the process: process or device_difference


@dataclass(frozen=True)
class Telemetry:
    """What gauges saw over a window. None where nobody says; `Measurement.reasons` says why."""

    garbage_collection: str | None = None
    clock_check: ClockCheck | None = None
    memory_check: MemoryCheck | None = None
    samples: Count | None = None  # of the device
    memory_method: str | None = None  # how the process's memory was seen: process or device_difference
    peak_used_bytes: Count | None = None  # whole device's peak, every process
    sm_clock_mhz_mean: Figure | None = None
    sm_clock_mhz_max: Figure | None = None
    memory_clock_mhz_mean: Figure | None = None
    memory_clock_mhz_max: Figure | None = None
    temperature_c_max: Figure | None = None
    power_w_mean: Figure | None = None
    throttled: dict[str, Share] | None = None  # throttle reason to the share of samples that showed it
    other_compute_pids: list[Count] | None = None  # other processes that were seen to compute on the device
    pcie_rx_bytes: Count | None = None  # received by the device over the window
    pcie_tx_bytes: Count | None = None
    pcie_method: str | None = None  # counter or sampled

    @property
    def power_limited(self) -> float | None:
        """Share of the samples in which the device's own power limit held its clock down."""
        return (self.throttled or {}).get(OWN_LIMIT)
