"""What a search is after: one or several objectives, within limits that are judged as `zbench recommend` judges them.

It refuses to make a value of what is none: a trial that FAILED, one whose figures are not to be trusted, and one
without a figure have no values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zbench.analysis.constraints import Limits, constraints_of, hardware_memory
from zbench.analysis.figures import TrialFigures
from zbench.analysis.objectives import AIMS
from zbench.analysis.work import work_key, work_names
from zbench.errors import ConfigError
from zbench.space import Space

UNKNOWN = 1000.0
"""By how much a limit is missed that cannot be judged: farther than by any figure, and finite, for it is stored."""

MOST_WITHOUT = 2
"""So many trials lack a figure, and none had it before: then a search has nothing to go by, and ends with an error."""


@dataclass(frozen=True)
class GoalOptions(Limits):
    """Options of every search that is after something; None of an objective: the search's own."""

    objective: str | list[str] | None = None

    @property
    def objectives(self) -> list[str]:
        """As they were typed. Raises ConfigError for one that is none, and for one that stands twice."""
        typed = [self.objective] if isinstance(self.objective, str) else list(self.objective or [])
        for name in typed:
            if name not in AIMS:
                raise ConfigError(option("objective"), name, f"must be one of {', '.join(AIMS)}")
        if len(set(typed)) < len(typed):
            raise ConfigError(option("objective"), self.objective, "names one twice")
        return typed


def option(name: str) -> str:
    """What a user types for an option."""
    return f"search.options.{name}"


@dataclass(frozen=True)
class Standing:
    """How a trial stands to what a search is after. It has no values where it FAILED, has doubts or lacks a figure."""

    values: tuple[float, ...] | None
    missed: dict[str, float]  # limit to by how much it is missed, as a share of the limit; 0: it is not
    beyond_recovery: bool = False  # it misses one of the worst image's, or of a peak: more samples cannot mend that

    @property
    def is_feasible(self) -> bool:
        """Whether it has values and misses nothing."""
        return self.values is not None and not any(self.missed.values())

    @property
    def missed_by(self) -> float:
        """All that it misses, each as a share of its limit."""
        return sum(self.missed.values())


class Goals:
    """Objectives and limits of one search."""

    def __init__(self, options: GoalOptions, objectives: Sequence[str]) -> None:
        """`objectives` are those of the options, or what stands for them. Raises ConfigError as `constraints_of`."""
        self.objectives = tuple(objectives)
        self._constraints = constraints_of(options, option)
        self._without: dict[str, int] = {}  # trials that lack a figure; of one that some trial had: below zero

    @property
    def more_is_better(self) -> tuple[bool, ...]:
        """Of each objective."""
        return tuple(AIMS[name].more_is_better for name in self.objectives)

    @property
    def limits(self) -> tuple[str, ...]:
        """What each limit is called."""
        return tuple(constraint.flag for constraint in self._constraints)

    def standing(self, row: TrialFigures) -> Standing:
        """How a trial stands. Raises ConfigError where nothing that is asked for can be had of any trial."""
        if row.state != "COMPLETE" or row.doubts:
            return Standing(None, {})
        missed: dict[str, float] = {}
        hopeless = False
        for constraint in (*self._constraints, *hardware_memory([row])):
            missed_by = constraint.miss(row)
            if constraint in self._constraints and not row.is_reference:
                self._hold(constraint.flag, constraint.limit, missed_by is None, row.why_missing(constraint.path))
            missed[constraint.flag] = UNKNOWN if missed_by is None else missed_by / abs(constraint.limit or 1)
            hopeless |= bool(missed_by) and (constraint.metric.images == "worst" or constraint.metric.unit == "bytes")
        values = []
        for name in self.objectives:
            value = AIMS[name].read(row)
            self._hold(option("objective"), name, value is None, row.why_missing(AIMS[name].path))
            values.append(math.nan if value is None else value)
        known = all(math.isfinite(value) for value in values)
        return Standing(tuple(values) if known else None, missed, hopeless)

    def rank(self, standing: Standing) -> tuple[bool, bool, float, float]:
        """To sort by, the best first, by the first objective: feasible ones, then by how little they miss."""
        if standing.values is None:
            return True, True, math.inf, math.inf
        value = standing.values[0]
        return False, not standing.is_feasible, standing.missed_by, -value if self.more_is_better[0] else value

    def _hold(self, key: str, value: object, is_missing: bool, why: str | None) -> None:
        """Raise ConfigError once MOST_WITHOUT trials lack a figure, and none ever had it."""
        name = f"{key}={value}"
        if not is_missing:
            self._without[name] = -1
        elif self._without.get(name, 0) >= 0:
            self._without[name] = self._without.get(name, 0) + 1
            if self._without[name] >= MOST_WITHOUT:
                raise ConfigError(key, value, f"no trial here has a figure for it ({why or 'not recorded'})")


def hold_one_work(space: Space, name: str) -> None:
    """Raise ConfigError where the trials that were asked for are of several pieces of work, or seek a rate.

    Trials of two works are never compared: 512² would win over 1024².
    """
    asked = [placed for placed in space.placed if placed.trial.trial_id in space.asked]
    of_references = {placed.reference_id: placed.trial for placed in asked}
    works = {work_key(trial): trial for trial in of_references.values()}
    if len(works) > 1:
        names = "; ".join(work_names(list(works.values())))
        raise ConfigError("search", name, f"compares trials of one piece of work, and these are {len(works)}: {names}")
    if any(placed.trial.workload.seeks_rate for placed in asked):
        raise ConfigError("search", name, "finds no rate of arrivals; give workload.rate_per_s=, or use search=grid")
