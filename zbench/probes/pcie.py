"""What passed over PCIe during a block, from the device's counters or, without them, from samples of its throughput.

A counter that is full begins anew. One such turn between two looks is added up; several are not seen, so that the sum
is too small where a counter of 32 bits fills more than once between looks.
"""

from dataclasses import dataclass

from zbench.hardware.nvml import Nvml, PcieBytes
from zbench.probes.integral import integral

NARROW, WIDE = 2**32, 2**64
"""What the counters of NVML are full at: the driver does not say which."""


@dataclass(frozen=True)
class PcieTraffic:
    """Bytes over a block as the device sees them; all None where the driver says nothing."""

    received_bytes: int | None = None
    transmitted_bytes: int | None = None
    method: str | None = None
    """counter, or sampled: throughput over 20 ms at each look, integrated."""


class PcieMeter:
    """Adds up one device's traffic; `start`, then `look` as often as wanted, then `traffic`."""

    def __init__(self, nvml: Nvml, index: int) -> None:
        """`index` is NVML's."""
        self._nvml, self._index = nvml, index
        self._last: PcieBytes | None = None
        self._received = self._transmitted = 0.0
        self._rates: list[tuple[float, PcieBytes]] = []

    def start(self) -> None:
        """Begin a block; one without counters begins with its first look."""
        self._received = self._transmitted = 0.0
        self._rates = []
        self._last = self._nvml.pcie_counters(self._index)

    def look(self, at_s: float) -> None:
        """Read the counters once; without them the call waits for 40 ms in which it sees traffic pass."""
        if self._last is None:
            rate = self._nvml.pcie_bytes_per_s(self._index)
            if rate is not None:
                self._rates.append((at_s, rate))
            return
        now = self._nvml.pcie_counters(self._index)
        if now is not None:  # else the next look covers this one's time as well
            self._received += _gained(self._last.received, now.received)
            self._transmitted += _gained(self._last.transmitted, now.transmitted)
            self._last = now

    def counted(self, at_s: float) -> PcieTraffic:
        """From `start` to now; nothing where there are no counters, as a sample takes longer than may be waited."""
        if self._last is None:
            return PcieTraffic()
        self.look(at_s)
        return self.traffic()

    def traffic(self) -> PcieTraffic:
        """From `start` to the last look."""
        if self._last is not None:
            return PcieTraffic(round(self._received), round(self._transmitted), "counter")
        received = integral([(at_s, rate.received) for at_s, rate in self._rates])
        transmitted = integral([(at_s, rate.transmitted) for at_s, rate in self._rates])
        if received is None or transmitted is None:
            return PcieTraffic()
        return PcieTraffic(round(received), round(transmitted), "sampled")


def _gained(before: float, after: float) -> float:
    if after >= before:
        return after - before
    return after - before + (NARROW if before < NARROW else WIDE)
