"""Which thresholds skip the same steps, from the residual differences that were compared at one of them. Pure.

DBCache (cache-dit 1.5.3, `can_cache` and `similarity`) skips a step that is past the warm-up, after fewer than so many
skipped in a row, where its residual difference lies below the threshold. Up to the first step that is decided
otherwise, two thresholds skip the same steps, and so compare the same differences. Hence:

- Thresholds above the largest difference that was skipped, up to and with the smallest that was not, skip the same
  steps: a `Span`. Beyond either end one of these decisions is another one, so the pattern is too.
- What was recorded at one threshold says nothing of differences beyond its span; the next pattern has to be tried.
- The first decision that parts two thresholds skips the step at the higher one. So a pattern never comes back, and a
  threshold in a gap between known spans always has a new one.

Here only which steps were compared matters, never why: warm-up, steps in a row and masks decide that.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

HIGHEST_COMPARED = math.nextafter(1.0, 0.0)
"""At a threshold of 1 or more cache-dit compares nothing: all that may be skipped is."""

DIGITS = 17
"""So many tell any two numbers apart."""


class Walk(NamedTuple):
    """The steps of one call: those that were skipped, and the residual differences that were compared, by step."""

    skipped: Sequence[int]
    differences: Mapping[int, float]


@dataclass(frozen=True)
class Span:
    """Thresholds above `above`, up to and with `upto`."""

    above: float
    upto: float

    def has(self, threshold: float) -> bool:
        """Whether it is one of them."""
        return self.above < threshold <= self.upto


EVERY = Span(0.0, math.inf)


def span_at(threshold: float, walks: Iterable[Walk]) -> Span | None:
    """The thresholds at which each of these calls skips what it skipped at this one.

    None where the differences do not say so: nothing was compared, or something else decided what was skipped.
    """
    above, upto, compared = 0.0, math.inf, False
    for walk in walks:
        skipped = set(walk.skipped)
        if threshold > HIGHEST_COMPARED:
            above = HIGHEST_COMPARED
            if walk.differences:
                return None
            compared = True
            continue
        if not skipped <= walk.differences.keys():
            return None
        for step, difference in walk.differences.items():
            if (difference < threshold) != (step in skipped):
                return None
            compared = True
            if step in skipped:
                above = max(above, difference)
            else:
                upto = min(upto, difference, HIGHEST_COMPARED)
    return Span(above, upto) if compared else None


def gaps(spans: Iterable[Span], within: Span = EVERY) -> list[Span]:
    """The thresholds of `within` that lie in none of `spans`, lowest first."""
    found, end = [], within.above
    for span in sorted(spans, key=lambda each: each.above):
        if span.above > end and end < within.upto:
            found.append(Span(end, min(span.above, within.upto)))
        end = max(end, span.upto)
    return [*found, Span(end, within.upto)] if end < within.upto else found


def between(gap: Span, differences: Iterable[float], liked: Iterable[float] = ()) -> float:
    """A threshold of the gap that has about as many patterns below it as above.

    Patterns part at differences, and those of other patterns are near the ones of this gap. So it lies between the two
    in the middle of the `differences` there; one of `liked`, if any does, else a short one.
    """
    if gap.above >= HIGHEST_COMPARED:
        return next((value for value in liked if gap.has(value)), 1.0)
    ends = [gap.above, *sorted(d for d in set(differences) if gap.above < d < gap.upto and d < 1)]
    ends.append(min(gap.upto, HIGHEST_COMPARED))
    middle = (len(ends) - 1) // 2
    low, high = ends[middle], ends[middle + 1]
    fitting = [value for value in liked if low < value <= high]
    return min(fitting, key=lambda value: abs(value - (low + high) / 2)) if fitting else short(low, high)


def short(low: float, high: float) -> float:
    """The number with the fewest digits above `low`, up to and with `high`, that is nearest their middle."""
    middle = low + (high - low) / 2
    rounded = (float(f"{middle:.{digits}g}") for digits in range(1, DIGITS + 1))
    return next((value for value in rounded if low < value <= high), high)


class Wobble:
    """By how much a difference varies from call to call, where the same was skipped before it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[object, int, tuple[int, ...]], tuple[float, float]] = {}

    def add(self, sample: object, walk: Walk) -> None:
        """`sample` names prompt and seed."""
        for step, difference in walk.differences.items():
            key = sample, step, tuple(s for s in walk.skipped if s < step)
            low, high = self._seen.get(key, (difference, difference))
            self._seen[key] = min(low, difference), max(high, difference)

    @property
    def relative(self) -> float:
        """The largest, as a share of the difference; 0 where the same call always gives the same."""
        return max(((high - low) / high for low, high in self._seen.values() if high > 0), default=0.0)


def walks_of(calls: Iterable[tuple[object, Sequence[int], Mapping[str, float]]]) -> Iterator[tuple[object, Walk]]:
    """Of each call its sample and its walk; steps are keys of JSON."""
    for sample, skipped, differences in calls:
        yield sample, Walk(tuple(sorted(skipped)), {int(step): value for step, value in differences.items()})
