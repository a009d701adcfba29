"""How `tune` holds trials against limits and objective, and what one decision bought; it decides nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zbench.analysis import objectives
from zbench.analysis.constraints import Constraint, Judged
from zbench.analysis.figures import TrialFigures
from zbench.analysis.metrics import REGISTRY
from zbench.analysis.objectives import Objective
from zbench.record import Record
from zbench.trial import Trial


@dataclass(frozen=True)
class Told:
    """What came of a trial."""

    trial: Trial
    record: Record
    row: TrialFigures

    @property
    def is_measured(self) -> bool:
        """Whether it was timed, and has figures that are to be trusted."""
        return self.has_images and not self.row.is_untimed and not self.row.doubts

    @property
    def has_images(self) -> bool:
        """Whether its images could be judged."""
        return self.record.state == "COMPLETE"

    @property
    def why_not(self) -> str | None:
        """Why it has none, a sentence without its end."""
        if self.record.state != "COMPLETE":
            return self.record.reason.message if self.record.reason else self.record.state
        return "; ".join(self.row.doubts) or None

    @property
    def denoise_share(self) -> float:
        """What of its time the steps take, 0 to 1; 1 where nobody timed them, which bounds all the same."""
        measured = self.record.valid_measurement
        denoise_s = None if measured is None else REGISTRY["stages.denoise.median"].read(measured)
        latency_s = self.row.latency_median_s
        return min(1.0, denoise_s / latency_s) if denoise_s and latency_s else 1.0


@dataclass(frozen=True)
class Factor:
    """How many times better one trial is than another, with its 95 % interval where both have one."""

    ratio: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """`1.42× [1.40, 1.44]`."""
        within = "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.ratio:.2f}×{within}"


@dataclass(frozen=True)
class Judge:
    """Limits and objective of one search. Costs are per image: seconds for latency and throughput, or joules."""

    constraints: Sequence[Constraint]
    objective: Objective

    def allows(self, told: Told) -> bool:
        """Whether it may stand so far: all limits but the one on latency, which later decisions may still meet."""
        others = (c for c in self.constraints if c.metric.about != "latency")
        return told.is_measured and all(c.miss(told.row) == 0 for c in others)

    def satisfies(self, told: Told) -> bool:
        """Whether it may be recommended."""
        return told.is_measured and all(c.miss(told.row) == 0 for c in self.constraints)

    def keeps_likeness(self, told: Told) -> bool:
        """Whether its images meet the limits on images."""
        return told.has_images and all(judged.missed_by == 0 for judged in self.of_images(told))

    def misses_memory(self, told: Told) -> bool:
        """Whether it ran out of device memory or needs more than the limit."""
        if told.record.state == "FAILED":
            return told.record.reason is not None and told.record.reason.code == "out_of_memory"
        over = (c for c in self.constraints if c.metric.about == "memory")
        return told.row.misfit is not None or any((c.miss(told.row) or 0) > 0 for c in over)

    @property
    def limits_images(self) -> bool:
        """Whether there is a limit that skipping steps can miss."""
        return any(c.metric.about == "quality" for c in self.constraints)

    def cost(self, told: Told, baseline: Told | None) -> float:
        """See `objectives.cost`."""
        return objectives.cost(self.objective, told.row, None if baseline is None else baseline.row)

    def best(self, every: Sequence[Told], baseline: Told | None) -> Told | None:
        """Of those that may stand the cheapest; if any is within the limit on latency, of these."""
        standing = [told for told in every if self.allows(told) and self.cost(told, baseline) < math.inf]
        standing = [told for told in standing if self.satisfies(told)] or standing
        return min(standing, key=lambda told: self.cost(told, baseline), default=None)

    def of_images(self, told: Told) -> list[Judged]:
        """How its images stand to each limit on images."""
        return [each.judge(told.row) for each in self.constraints if each.metric.about == "quality"]

    def factor(self, before: Told, after: Told, baseline: Told | None) -> Factor | None:
        """What going from one to the other bought; None where either has no figure."""
        costs = self.cost(before, baseline), self.cost(after, baseline)
        if math.inf in costs or costs[1] <= 0:
            return None
        ratio = costs[0] / costs[1]
        if before.trial.trial_id == after.trial.trial_id:
            return Factor(1.0, 1.0, 1.0)
        halves = [_half_width(told.row) if self.objective == "latency" else None for told in (before, after)]
        known = [half for half in halves if half is not None]
        if len(known) < 2:
            return Factor(ratio, None, None)
        spread = math.exp(math.hypot(*known))
        return Factor(ratio, ratio / spread, ratio * spread)


def _half_width(row: TrialFigures) -> float | None:
    """Of the 95 % interval of its speed, in logarithms: of its speed-up's, else of its median latency's. 0 for a
    baseline, whose own scatter is in the speed-ups over it."""
    if row.is_baseline:
        return 0.0
    for low, high in ((row.speedup_low, row.speedup_high), (row.latency_low_s, row.latency_high_s)):
        if low and high and low > 0:
            return math.log(high / low) / 2
    return None
