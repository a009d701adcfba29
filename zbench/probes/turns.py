"""What of a device's block belongs to whom, where several take turns in it: spans of time, and what counters rose by.

A span begins and ends beside somebody's requests, so that time between turns is nobody's. A counter that a device
updates every 20 to 100 ms splits the last of them between neighbours by chance: over eight turns of a second that is
about 1 % of a sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from zbench.probes.pcie import PcieTraffic


@dataclass
class Spans:
    """The turns of one of those that share a block."""

    spans_s: list[tuple[float, float]] = field(default_factory=list)
    joules: float | None = 0.0  # None where a counter did not say
    pcie: PcieTraffic = field(default_factory=lambda: PcieTraffic(0, 0, "counter"))

    @property
    def duration_s(self) -> float:
        """Of all turns."""
        return sum(ended_s - began_s for began_s, ended_s in self.spans_s)

    def contains(self, at_s: float) -> bool:
        """Whether a time lies in one of the turns."""
        return any(began_s <= at_s <= ended_s for began_s, ended_s in self.spans_s)


class OwnTurns:
    """Of one device in one block."""

    def __init__(self) -> None:
        self._of: dict[str, Spans] = {}
        self._began: tuple[float, float | None, PcieTraffic] | None = None

    def begin(self, at_s: float, energy_j: float | None, pcie: PcieTraffic) -> None:
        """A turn begins, with what the counters show."""
        self._began = at_s, energy_j, pcie

    def end(self, owner: str, at_s: float, energy_j: float | None, pcie: PcieTraffic) -> None:
        """It was `owner`'s. Raises RuntimeError where none began."""
        if self._began is None:
            raise RuntimeError("a turn ends that did not begin")
        (began_s, before_j, before), self._began = self._began, None
        mine = self._of.setdefault(owner, Spans())
        mine.spans_s.append((began_s, at_s))
        known = mine.joules is not None and energy_j is not None and before_j is not None
        mine.joules = mine.joules + energy_j - before_j if known else None  # type: ignore[operator]
        mine.pcie = _added(mine.pcie, before, pcie)

    def of(self, owner: str) -> Spans:
        """What belongs to `owner`."""
        return self._of.get(owner, Spans())

    @staticmethod
    def joules(powers: Sequence[tuple[float, float]], duration_s: float) -> float | None:
        """Mean power of somebody's samples over the time of their turns; None without a sample."""
        return sum(watts for _, watts in powers) / len(powers) * duration_s if powers else None


def _added(total: PcieTraffic, before: PcieTraffic, after: PcieTraffic) -> PcieTraffic:
    figures = (
        (total.received_bytes, before.received_bytes, after.received_bytes),
        (total.transmitted_bytes, before.transmitted_bytes, after.transmitted_bytes),
    )
    received, transmitted = (None if None in each else each[0] + each[2] - each[1] for each in figures)  # type: ignore[operator]
    return PcieTraffic() if received is None or transmitted is None else PcieTraffic(received, transmitted, "counter")
