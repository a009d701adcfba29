"""How much a search may spend: seconds of measuring, or trials; and what one more trial is expected to take."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from zbench.errors import ConfigError

UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}
MOST_S = 1e8
MOST_TRIALS = 1_000_000
MOST_ASIDE = 0.25
"""Share of a budget that is kept for what comes last."""


@dataclass(frozen=True)
class Budget:
    """One of the two, or none: as long as it takes."""

    seconds: float | None = None
    trials: int | None = None

    def __str__(self) -> str:
        """`600 s`, `30 trials`."""
        if self.seconds is not None:
            return f"{self.seconds:g} s"
        return "no limit" if self.trials is None else f"{self.trials} trial{'s' if self.trials > 1 else ''}"


@dataclass(frozen=True)
class Paid:
    """What one trial took, in seconds."""

    process: str  # what must be equal for the next trial to find its pipeline loaded and compiled
    cold_s: float  # starting, loading, its first call and compiling
    warm_s: float  # warm-up and window
    calls: int  # that were made in `warm_s`
    only_quality: bool = False


@dataclass(frozen=True)
class Spent:
    """What has been spent: trials that have records, those that they are held to included, and their seconds."""

    trials: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Want:
    """A trial that may come, as far as its time depends on it."""

    process: str
    samples: int  # prompts with seeds
    only_quality: bool = False


@dataclass
class Ledger:
    """What trials took, and so what one more is expected to take."""

    budget: Budget
    paid: list[Paid] = field(default_factory=list)

    @property
    def spent(self) -> Spent:
        """By now."""
        return Spent(len(self.paid), sum(each.cold_s + each.warm_s for each in self.paid))

    def expected_s(self, want: Want, after: str | None = None) -> float:
        """What it would take, by the medians of those most like it: of its process, else of all; 0 before any ran.

        Loading and compiling are left out where it comes after a trial of its process: the last one, or `after`.
        """
        alike = [each for each in self.paid if each.only_quality == want.only_quality]
        same = [each for each in alike if each.process == want.process]
        if alike and not want.only_quality:
            warm_s = median(each.warm_s for each in same or alike)
        else:  # of images alone one call a sample is made
            calls_s = [each.warm_s / each.calls for each in same or alike or self.paid if each.calls]
            warm_s = want.samples * median(calls_s) if calls_s else 0.0
        last = after or (self.paid[-1].process if self.paid else None)
        colds_s = [each.cold_s for each in self.paid if each.cold_s and each.process == want.process]
        colds_s = colds_s or [each.cold_s for each in self.paid if each.cold_s]
        return warm_s + (0.0 if last == want.process or not colds_s else median(colds_s))

    def fitting_in(self, want: Want, share: float) -> int | None:
        """How many such trials fit into `share` of what is left of the budget; None: as many as there are."""
        spent, budget = self.spent, self.budget
        if budget.trials is not None:
            return max(0, math.floor((budget.trials - spent.trials) * share))
        each_s = self.expected_s(want, want.process)
        if budget.seconds is None or each_s <= 0:
            return None
        return max(0, math.floor((budget.seconds - spent.seconds) * share / each_s))

    def leaves(self, wants: Sequence[Want], share: float = 1.0, aside: Sequence[Want] = ()) -> bool:
        """Whether these may begin within `share` of the budget, with room for those `aside` after them.

        What would take more than MOST_ASIDE of that share has no room of its own.
        """
        spent, budget = self.spent, self.budget
        if budget.trials is not None:
            most = math.floor(budget.trials * share)
            kept = len(aside) if len(aside) <= most * MOST_ASIDE else 0
            return spent.trials + len(wants) + kept <= most
        if budget.seconds is not None:
            most_s = budget.seconds * share
            wanted_s, aside_s = self._together_s(wants), self._together_s(aside)
            return spent.seconds + wanted_s + (aside_s if aside_s <= most_s * MOST_ASIDE else 0.0) <= most_s
        return True

    def _together_s(self, wants: Sequence[Want]) -> float:
        """One after another."""
        before = [None, *(each.process for each in wants)]
        return sum(self.expected_s(each, after) for each, after in zip(wants, before, strict=False))


def parse_budget(text: str | int | None, key: str) -> Budget:
    """`10min`, `600s`, `1h` or a number of trials. Raises ConfigError, which calls it `key`, for anything else."""
    if text is None:
        return Budget()
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(text))
    unit = found[2] if found else ""
    if not found or (unit and unit not in UNITS_S):
        raise ConfigError(key, str(text) or "''", "must be such as 10min, 600s, 1h, or 30 for a number of trials")
    if unit:
        seconds = float(found[1]) * UNITS_S[unit]
        if not 0 < seconds <= MOST_S:
            raise ConfigError(key, text, f"must be above 0 and within {MOST_S:g} s")
        return Budget(seconds=seconds)
    if "." in found[1] or not 1 <= int(found[1]) <= MOST_TRIALS:
        raise ConfigError(key, text, f"is a number of trials, within 1 and {MOST_TRIALS}; a time has a unit: 10min")
    return Budget(trials=int(found[1]))
