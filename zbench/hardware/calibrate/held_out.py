"""How far a projection is off where nothing of the kind was fitted: each kind of row left out in turn.

Left out are each hardware, each topology of several devices, and each offload mode. Of a hardware that is left out only
those rows are projected that another one has as well: none that is sharded, and none of the fast path. Left out as well
are FP8, and the whole fast path: nothing else shows what a piece of software gains, so that is said apart.
A figure is a computed forward or a whole call; it is covered where it lies within its projection's range. Rows whose
figures are known to be of something else are left out and said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median

from zbench.hardware.calibrate.fit import fit
from zbench.hardware.calibrate.observed import Ceiling, Observation
from zbench.hardware.calibrate.projecting import FIGURES, Shares
from zbench.hardware.seconds import Estimate

FORESEEN = ("hardware", "topology", "offload")
"""Kinds that are projected from others of their kind."""
KINDS = (*FORESEEN, "software")


@dataclass(frozen=True)
class LeftOut:
    """One measured figure, and what is projected of it without its kind."""

    kind: str  # one of KINDS
    left_out: str  # which
    hardware: str
    setting: str
    figure: str  # forward or call
    measured_s: float
    projected: Estimate

    @property
    def covered(self) -> bool:
        return self.projected.low <= self.measured_s <= self.projected.high

    @property
    def half_width(self) -> float:
        """Of its range, relative to the point."""
        return (self.projected.high - self.projected.low) / 2 / self.projected.point

    @property
    def off(self) -> float:
        return self.projected.point / self.measured_s - 1


def leave_out(seen: Sequence[Observation], ceilings: Sequence[Ceiling]) -> list[LeftOut]:
    """Every kind of row, left out in turn."""
    alike = (each for kind in ("topology", "offload") for each in _each(kind, seen, ceilings))
    return [*_hardware(seen, ceilings), *alike, *_software(seen, ceilings)]


def _hardware(seen: Sequence[Observation], ceilings: Sequence[Ceiling]) -> Iterator[LeftOut]:
    for name in sorted({o.hardware for o in seen}):
        kept = [o for o in seen if o.hardware != name]
        held = [o for o in seen if o.hardware == name and o.dims.ranks == 1 and not o.software]
        if kept:
            shares = fit(kept, [c for c in ceilings if c.hardware != name], "")
            yield from _figures("hardware", name, held, shares)


def _each(kind: str, seen: Sequence[Observation], ceilings: Sequence[Ceiling]) -> Iterator[LeftOut]:
    for name in sorted({getattr(o, kind) for o in seen} - {""}):
        shares = fit([o for o in seen if getattr(o, kind) != name], ceilings, "")
        held = [o for o in seen if getattr(o, kind) == name]
        yield from _figures(kind, name, held, shares)


def _software(seen: Sequence[Observation], ceilings: Sequence[Ceiling]) -> Iterator[LeftOut]:
    """FP8 from the rest of the fast path; all of the fast path, FP8 with it, from what has none of it."""
    for name, gone in (("fp8", ("fp8",)), ("fast", ("fp8", "fast"))):
        held = [o for o in seen if o.software == name]
        if held:
            shares = fit([o for o in seen if o.software not in gone], ceilings, "")
            yield from _figures("software", name, held, shares)


def _figures(kind: str, name: str, held: Sequence[Observation], shares: Shares) -> Iterator[LeftOut]:
    for o in held:
        if not o.modelled:
            continue
        for figure, measured_s, project in FIGURES:
            if seconds := measured_s(o):
                yield LeftOut(kind, name, o.hardware, o.setting, figure, seconds, project(o, shares))


@dataclass(frozen=True)
class Coverage:
    """Of some left-out figures."""

    count: int
    covered: float  # of 1
    settings: float  # the same where figures that are projected alike count as one
    half_width: float  # median
    off: float  # median of the absolute ones

    @classmethod
    def of(cls, figures: Sequence[LeftOut]) -> "Coverage":
        return cls(
            len(figures),
            sum(f.covered for f in figures) / len(figures),
            mean(mean(each) for each in _alike(figures)),
            median(f.half_width for f in figures),
            median(abs(f.off) for f in figures),
        )


def _alike(figures: Sequence[LeftOut]) -> list[list[bool]]:
    """Whether they are covered, by what is projected of them: a mask measured four times is one setting."""
    groups: dict[object, list[bool]] = {}
    for f in figures:
        groups.setdefault((f.kind, f.left_out, f.hardware, f.figure, f"{f.projected.point:.5g}"), []).append(f.covered)
    return list(groups.values())
