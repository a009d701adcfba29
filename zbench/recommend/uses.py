"""How a number of devices is best used: one image sharded over them, or an image on each; measures nothing.

Example: on two devices a request takes 0.60 s sharded and 1.00 s on one of them. For latency the first is best; for
throughput two requests side by side are, with 2.0 images/s instead of 1.67.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zbench.analysis.figures import TrialFigures
from zbench.analysis.objectives import Objective
from zbench.errors import ConfigError, RecordError
from zbench.report.text import cells
from zbench.trial import Trial

MOST_DEVICES = 1024

TrialOf = Callable[[TrialFigures], Trial]
"""The trial behind figures."""


@dataclass(frozen=True)
class Goal:
    """What the devices are for, and how many there are; None: each number that the records have."""

    objective: Objective = "latency"
    devices: int | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be meant."""
        if self.devices is not None and not 1 <= self.devices <= MOST_DEVICES:
            raise ConfigError("--devices", self.devices, f"must be within 1 and {MOST_DEVICES}")

    def numbers(self, rows: Sequence[TrialFigures]) -> list[int]:
        """The numbers of devices that are asked for."""
        if self.devices is not None:
            return [self.devices]
        return sorted({row.devices for row in rows if row.state == "COMPLETE"}) or [1]


@dataclass(frozen=True)
class DeviceUse:
    """A trial on some of the devices, or copies of it side by side on all of them."""

    objective: Objective
    devices: int  # there are
    row: TrialFigures
    copies: int
    images_per_s: float | None
    is_projection: bool  # the copies were not measured together: their rates are added up

    def __str__(self) -> str:
        """`For throughput on 2 devices: 2 copies of it side by side, 1 device each, …`."""
        each = counted(self.row.devices)
        how = (
            f"{self.copies} copies of it side by side, {each} each" if self.copies > 1 else f"one copy of it on {each}"
        )
        rate = "" if self.images_per_s is None else f", {cells.digits(self.images_per_s)} images/s"
        if self.objective == "energy" and self.row.joules_an_image is not None:
            rate = f", {cells.digits(self.row.joules_an_image)} J an image"
        told = f"For {self.objective} on {counted(self.devices)}: {how}{rate}"
        if not self.is_projection:
            return told
        dp = self.copies * self.row.dp_size
        return (
            f"{told}, a projection: {self.copies} × {cells.digits(self.row.images_per_s or 0.0)} images/s of one copy; "
            f"parallel.dp_size={dp} has no trusted measurement here"
        )

    def to_dict(self) -> dict[str, Any]:
        """For programs; JSON-ready. What runs is the recommendation's own `chosen`."""
        return {
            "objective": self.objective,
            "devices": self.devices,
            "copies": self.copies,
            "devices_a_copy": self.row.devices,
            "images_per_s": self.images_per_s,
            "images_per_s_is_projection": self.is_projection,
        }

    @property
    def short(self) -> str:
        """Its label, and its figure for the objective."""
        if self.objective == "latency":
            return f"{self.row.label}, {cells.median_s(self.row)} s a request"
        if self.objective == "energy" and self.row.joules_an_image is not None:
            return f"{self.row.label}, {cells.digits(self.row.joules_an_image)} J an image"
        rate = f"{cells.digits(self.images_per_s or 0.0)} images/s"
        copies = f"{self.copies} copies of " if self.copies > 1 else ""
        return f"{copies}{self.row.label}, {rate}{' (a projection)' if self.is_projection else ''}"


def rank_uses(rows: Sequence[TrialFigures], trial_of: TrialOf, objective: Objective, devices: int) -> list[DeviceUse]:
    """The best use of `devices` that each trial gives, the best first.

    For latency a trial whose devices make images side by side is none. Raises RecordError where no trial ran on so
    few devices, and for energy where none has a figure for it.
    """
    few = [row for row in rows if row.devices <= devices]
    if not few:
        least = min(row.devices for row in rows)
        raise RecordError(f"no trial here ran on {counted(devices)} or fewer; the fewest are --devices {least}")
    if objective == "latency":
        sharded = [row for row in few if row.dp_size == 1] or few
        uses = [DeviceUse(objective, devices, row, 1, row.images_per_s, False) for row in sharded]
        return sorted(uses, key=lambda use: (*_slowness(use.row, sharded), use.row.devices))
    if objective == "energy":
        return _least_energy(few, devices)
    together = {(_replica(trial_of(row)).trial_id, row.devices) for row in few}
    uses = [_most_images(row, trial_of(row), together, devices) for row in few]
    return sorted(uses, key=lambda use: (-(use.images_per_s or 0.0), use.is_projection, use.row.devices))


def use_notes(feasible: Sequence[TrialFigures], trial_of: TrialOf, chosen: DeviceUse) -> list[str]:
    """What the other objective would choose, and that no trial used all devices."""
    notes = []
    other: Objective = "throughput" if chosen.objective == "latency" else "latency"
    best = rank_uses(feasible, trial_of, other, chosen.devices)[0]
    if (best.row.key, best.copies) != (chosen.row.key, chosen.copies):
        notes.append(f"--objective {other} would choose {best.short}")
    if all(row.devices != chosen.devices for row in feasible):
        notes.append(f"no trial to choose from ran on {counted(chosen.devices)}")
    return notes


def _slowness(row: TrialFigures, rows: Sequence[TrialFigures]) -> tuple[float, float]:
    """By speed-up where all are compared with one baseline, as the report ranks them; else by the request's time."""
    one = len({(r.sweep, r.baseline_id) for r in rows}) == 1 and all(r.speedup is not None for r in rows)
    infinite = float("inf")
    return -(row.speedup or 0.0) if one else 0.0, row.latency_median_s or infinite


def _least_energy(rows: Sequence[TrialFigures], devices: int) -> list[DeviceUse]:
    """By joules an image; one without a figure is none of them."""
    known = [row for row in rows if row.joules_an_image is not None]
    if not known:
        raise RecordError(
            "--objective energy: no trial here has joules an image, which need a GPU and 10 s of requests; give "
            "measure.budget_s=30, or take --objective latency"
        )
    uses = [DeviceUse("energy", devices, row, 1, row.images_per_s, False) for row in known]
    return sorted(uses, key=lambda use: (use.row.joules_an_image or 0.0, use.row.devices))


def _most_images(row: TrialFigures, trial: Trial, together: set[tuple[str, int]], devices: int) -> DeviceUse:
    """As many copies as there is room for, unless just that was measured or its rate is not known."""
    copies, rate = devices // row.devices, row.images_per_s
    measured = (_replica(trial).trial_id, row.devices * copies) in together
    if copies == 1 or rate is None or measured:
        return DeviceUse("throughput", devices, row, 1, rate, False)
    return DeviceUse("throughput", devices, row, copies, copies * rate, True)


def _replica(trial: Trial) -> Trial:
    """What each of the images made side by side takes."""
    return replace(trial, parallel=replace(trial.parallel, dp_size=1))


def counted(devices: int) -> str:
    """`1 device`, `2 devices`."""
    return "1 device" if devices == 1 else f"{devices} devices"
