"""Settings that are the same but for their threshold: what is known of their patterns, and which threshold comes next.

It is told what was skipped and how that stands to the limits, and knows neither records nor searches.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from zbench.methods.cache import method_of
from zbench.search.bracket import bracket
from zbench.search.thresholds.patterns import EVERY, HIGHEST_COMPARED, Span, Walk, Wobble, between, gaps, span_at
from zbench.trial import Trial

MOST_TRIALS = 8
"""Of a family, where a limit is given."""

MOST_FAILURES = 2
"""Trials that say nothing of what they skipped; then only what was typed is tried."""

UNTOLD = "its engine does not tell the residual differences that decide what is skipped"

SAME = 4.0
"""Thresholds are told apart where they differ by this many times what a difference varies from call to call."""

Pattern = frozenset[tuple[object, tuple[int, ...]]]
"""Of each sample the steps that were skipped."""


@dataclass
class Visit:
    """A threshold that was tried, and those at which the same is skipped."""

    trial: Trial
    threshold: float
    span: Span
    pattern: Pattern
    holds: bool | None = None  # whether it is within the limits; None: there are none

    @property
    def skips(self) -> bool:
        """Whether anything is skipped."""
        return any(steps for _, steps in self.pattern)


@dataclass
class Family:
    """Of one setting, `typed` being the trials that were asked for, by rising threshold."""

    typed: Sequence[Trial]
    limits: str = ""
    """In words; where there are some the most-skipping pattern within them is sought, else all patterns."""
    visits: list[Visit] = field(default_factory=list)
    awaited: float | None = None
    gave_up: str | None = None
    """Why only what was typed is tried."""
    told: set[float] = field(default_factory=set)
    _failed: list[float] = field(default_factory=list)
    _differences: set[float] = field(default_factory=set)
    _wobble: Wobble = field(default_factory=Wobble)

    @property
    def name(self) -> str:
        """The label without its threshold, such as `F1B0_W4_MC3`."""
        return re.sub(r"_R[0-9][0-9.e+-]*", "", self.typed[0].label)

    def trial_at(self, threshold: float) -> Trial:
        """The setting with this threshold."""
        first = self.typed[0]
        return replace(first, cache=method_of(first.cache).at_threshold(threshold))

    # What it is told

    def tell(
        self, threshold: float, walks: Sequence[tuple[object, Walk]], holds: bool | None, problem: str | None
    ) -> None:
        """What came of a threshold; without `walks`, `problem` says why it failed."""
        self.told.add(threshold)
        if self.awaited == threshold:
            self.awaited = None
        if threshold <= 0:
            return
        span = span_at(threshold, (walk for _, walk in walks))
        if span is None:
            self._failed.append(threshold)
            if problem is None or len(self._failed) == MOST_FAILURES:
                self.gave_up = problem or UNTOLD
            return
        if self.limits and holds is None:
            self.gave_up = problem or "it cannot be judged"
            return
        for sample, walk in walks:
            self._wobble.add(sample, walk)
            self._differences.update(walk.differences.values())
        pattern = frozenset((sample, tuple(walk.skipped)) for sample, walk in walks)
        known = next((visit for visit in self.visits if visit.pattern == pattern), None)
        if known is not None:  # differences vary from call to call
            known.span = Span(min(known.span.above, span.above), max(known.span.upto, span.upto))
        else:
            self.visits.append(Visit(self.trial_at(threshold), threshold, span, pattern, holds))
            self.visits.sort(key=lambda visit: visit.threshold)

    # What comes next

    def next_threshold(self) -> float | None:
        """The one to try now. None: one is awaited, or nothing more is to be known."""
        if self.awaited is not None:
            return None
        if self.gave_up is not None:
            return next(
                (value for value in self._typed if value not in self.told and not self.standing_for(value)), None
            )
        return self._next_bisected() if self.limits else self._next_new()

    def _next_new(self) -> float | None:
        """In a gap, so it has a pattern that was not tried: one that was typed, if any is left."""
        left = self.gaps()
        for value in self._typed:
            if any(gap.has(value) for gap in left if value < 1 or gap.above >= HIGHEST_COMPARED):
                return value
        widest = max(left, key=lambda gap: (self._inside(gap), gap.upto - gap.above), default=None)
        return None if widest is None else between(widest, self._apart)

    def _next_bisected(self) -> float | None:
        """Between what holds and what does not."""
        if len(self.told) >= MOST_TRIALS:
            return None
        if not self.visits:
            likely = [value for value in self._typed if 0 < value < 1 and value not in self._failed]
            return likely[len(likely) // 2] if likely else between(self.gaps()[-1], ())
        left = self.gaps(self._undecided)
        return between(left[-1], self._apart, self._typed) if left else None

    @property
    def has_ended(self) -> bool:
        """Whether all is known that it asks for."""
        return bool(self.told) and self.awaited is None and self.next_threshold() is None

    @property
    def _undecided(self) -> Span:
        """From what holds to the next that does not."""
        best, worse = self.best, self.worse
        return Span(best.span.upto if best else 0.0, worse.span.above if worse else float("inf"))

    @property
    def best(self) -> Visit | None:
        """Of those within the limits the highest, which skips most as far as skipping more is less like."""
        return self._at(self._bracket[0])

    @property
    def worse(self) -> Visit | None:
        """The lowest above that, which is not within them."""
        return self._at(self._bracket[1])

    @property
    def _bracket(self) -> tuple[float | None, float | None]:
        return bracket((visit.threshold, visit.holds) for visit in self.visits)

    def _at(self, threshold: float | None) -> Visit | None:
        return next((visit for visit in self.visits if visit.threshold == threshold), None)

    def gaps(self, within: Span = EVERY) -> list[Span]:
        """Thresholds of which it is not known what they skip, if they can be told apart at all."""
        points = [Span(value * (1 - 1e-9), value) for value in self._failed]
        least = SAME * self._wobble.relative
        found = gaps([*(visit.span for visit in self.visits), *points], within)
        return [gap for gap in found if least == 0 or min(gap.upto, 1.0) - gap.above > least * min(gap.upto, 1.0)]

    def standing_for(self, threshold: float) -> Visit | None:
        """What was tried and skips the same at every step. A threshold of 0 skips nothing."""
        fitting = (v for v in self.visits if v.span.has(threshold) or (threshold <= 0 and not v.skips))
        return next(fitting, None)

    def _inside(self, gap: Span) -> int:
        return sum(gap.has(difference) for difference in self._apart)

    @property
    def _apart(self) -> list[float]:
        """The differences that were recorded, of those which are not told apart one."""
        found: list[float] = []
        for difference in sorted(self._differences):
            if not found or difference - found[-1] > SAME * self._wobble.relative * difference:
                found.append(difference)
        return found

    @property
    def _typed(self) -> list[float]:
        return [threshold_of(trial) for trial in self.typed]

    # What it says

    def left_out(self) -> Iterator[tuple[Trial, str]]:
        """Of what was typed and not tried, why that need not run, as far as that is known by now."""
        for trial, value in zip(self.typed, self._typed, strict=True):
            stands = self.standing_for(value)
            if value in self.told or value == self.awaited:
                continue
            if stands is not None:
                named = f"{stands.trial.label} (trial {stands.trial.trial_id})"
                yield trial, f"equal to {named}, which stands for it: no residual difference lies between the two"
            elif self.limits and self.has_ended and self.gave_up is None:
                yield trial, f"not tried: {self._why_not(value)}"

    def _why_not(self, threshold: float) -> str:
        """Why a threshold that was typed was not needed."""
        best, worse = self.best, self.worse
        if best is not None and threshold < best.threshold:
            return f"{best.trial.label} skips more, and is within {self.limits}"
        if worse is not None and threshold > worse.threshold:
            return f"{worse.trial.label} skips less, and is not within {self.limits}"
        return f"it is undecided after {len(self.told)} trials"

    def outcome(self) -> str:
        """What was found, in a sentence."""
        if self.gave_up is not None:
            return f"{self.name}: only the thresholds that were typed are tried; {self.gave_up}"
        return self._best_found() if self.limits else self._patterns_found()

    def _patterns_found(self) -> str:
        many = len(self.visits)
        said = f"{self.name}: {many} pattern{'s' * (many != 1)} of skipped steps, of {len(self.told)} thresholds tried"
        idle, most = self.visits[0], self.visits[-1]
        said += "" if idle.skips else f"; up to {idle.span.upto:.6g} nothing is skipped"
        said += f"; above {most.span.above:.6g} all are equal" if most.span.upto == float("inf") else ""
        if self.gaps():
            return f"{said}; there are more"
        return f"{said}{self._untold()}"

    def _best_found(self) -> str:
        best, worse, tried = self.best, self.worse, f"{len(self.told)} thresholds tried"
        if best is None or not best.skips:
            said = f"{self.name}: nothing that it skips is within {self.limits}, of {tried}"
        else:
            said = f"{self.name}: {best.trial.label} skips most within {self.limits}, of {tried}"
        left = self.gaps(self._undecided)
        if left:
            return f"{said}; thresholds above {left[0].above:.6g} and up to {left[-1].upto:.6g} are undecided"
        said += "" if worse is None else f"; the next pattern, {worse.trial.label}, is not"
        return f"{said}{self._untold()}"

    def _untold(self) -> str:
        varies = self._wobble.relative
        return f"; differences vary by {varies:.1g} of themselves from call to call" if varies else ""


def threshold_of(trial: Trial) -> float:
    """Raises ValueError for a trial that has none."""
    found = method_of(trial.cache).threshold
    if found is None:
        raise ValueError(f"{trial.label} has no threshold")
    return found
