"""How much a search may spend: seconds of measuring, or trials."""

import math
import re
from dataclasses import dataclass

from zbench.errors import ConfigError

UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}
MOST_S = 1e8
MOST_TRIALS = 1_000_000


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
class Spent:
    """What has been spent: trials that have records, those that they are held to included, and their seconds."""

    trials: int = 0
    seconds: float = 0.0
    typical_s: float = 0.0
    """What one more would take: the median, loading left out."""

    def leaves(self, budget: Budget, share: float = 1.0) -> bool:
        """Whether one more trial may begin within `share` of the budget."""
        if budget.trials is not None:
            return self.trials < math.floor(budget.trials * share)
        if budget.seconds is not None:
            return self.seconds + self.typical_s <= budget.seconds * share
        return True


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
