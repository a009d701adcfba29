"""From an interval and a margin to a verdict, with the numbers in a sentence. Standard library only.

A verdict is a statement about the truth that an interval supports, so what is not known is never a pass: an interval
that reaches across the margin, a failed trial, a NaN and too few samples are all INCONCLUSIVE.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from zbench.stats.outcome import Compared, Comparison, Refusal, Scale


class Verdict(StrEnum):
    """For a metric of which more is better, read SLOWER as worse and FASTER as better."""

    SLOWER = "SLOWER"
    FASTER = "FASTER"
    SAME = "SAME"
    NO_SLOWER = "NO SLOWER"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def passes(self) -> bool:
        """Whether a gate may let it through."""
        return self in (Verdict.FASTER, Verdict.SAME, Verdict.NO_SLOWER)


class Kind(StrEnum):
    """What a margin is measured in."""

    RELATIVE = "relative"  # to the base: 0.03 for 3 %
    ABSOLUTE = "absolute"  # in the metric's unit


@dataclass(frozen=True)
class Judgement:
    """A verdict, the sentence that gives its reason, and what it was judged from."""

    verdict: Verdict
    reason: str
    outcome: Compared


def judge(outcome: Compared, margin: float, kind: Kind = Kind.RELATIVE, *, higher_is_better: bool = False) -> Judgement:
    """The verdict on `outcome` with a margin that is not negative: a share of the base, or in the metric's unit.

    With margin m and the interval [lo, hi] of new/base, lower being better: lo > 1+m is SLOWER; hi < 1-m FASTER;
    within [1-m, 1+m] SAME; else hi <= 1+m is NO SLOWER; anything else INCONCLUSIVE. An absolute margin asks the same
    of new - base around 0, and `higher_is_better` mirrors the sides. ValueError for a margin that is negative, not
    finite or relative and at least 1, and for a ratio with an absolute margin or the other way round.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin={margin}: must be a number of at least 0")
    if kind is Kind.RELATIVE and margin >= 1:
        raise ValueError(f"margin={margin}: a relative margin is a share below 1, such as 0.03 for 3 %")
    if isinstance(outcome, Refusal):
        return Judgement(Verdict.INCONCLUSIVE, f"Nothing can be said: {outcome.detail}.", outcome)
    if (outcome.scale is Scale.RATIO) != (kind is Kind.RELATIVE):
        raise ValueError(f"a {kind} margin does not go with a {outcome.scale}")
    if not all(math.isfinite(figure) for figure in (outcome.estimate, outcome.low, outcome.high)):
        return Judgement(Verdict.INCONCLUSIVE, "Nothing can be said: the interval is not finite.", outcome)
    centre = 1.0 if outcome.scale is Scale.RATIO else 0.0
    floor, ceiling = centre - margin, centre + margin
    if higher_is_better:
        verdict = _verdict(-outcome.high, -outcome.low, -ceiling, -floor)
    else:
        verdict = _verdict(outcome.low, outcome.high, floor, ceiling)
    return Judgement(verdict, _sentence(verdict, outcome, margin, higher_is_better), outcome)


def deciding_margin(outcome: Compared, *, higher_is_better: bool = False) -> float | None:
    """The smallest margin at which the same interval passes, as a share or in the metric's unit; None for a refusal."""
    if isinstance(outcome, Refusal):
        return None
    centre = 1.0 if outcome.scale is Scale.RATIO else 0.0
    worst = centre - outcome.low if higher_is_better else outcome.high - centre
    return max(worst, 0.0) if math.isfinite(worst) else None


def correct_for_many(trials: int, level: float = 0.95) -> float:
    """The level of each interval at which, over `trials` judged at once, all hold together `level` of the time or more.

    Bonferroni's: 1 - (1 - level) / trials. It holds whatever the trials share (all share one baseline), and since the
    intervals hold together, so does every verdict read from them. Holm's step-down gains power only for p-values of
    one yes-or-no question each; it leaves no interval that could show SAME and SLOWER alike. Take the level before
    comparing. ValueError for no trials or a `level` not between 0 and 1.
    """
    if trials < 1:
        raise ValueError(f"trials={trials}: must be at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: must lie between 0 and 1")
    return 1 - (1 - level) / trials


def _verdict(low: float, high: float, floor: float, ceiling: float) -> Verdict:
    """Lower being better."""
    if low > ceiling:
        return Verdict.SLOWER
    if high < floor:
        return Verdict.FASTER
    if floor <= low and high <= ceiling:
        return Verdict.SAME
    return Verdict.NO_SLOWER if high <= ceiling else Verdict.INCONCLUSIVE


MEANING = {
    Verdict.SLOWER: "all of it is worse than the margin of {margin} allows",
    Verdict.FASTER: "all of it is better by more than the margin of {margin}",
    Verdict.SAME: "all of it is within the margin of {margin}",
    Verdict.NO_SLOWER: "none of it is worse than the margin of {margin} allows",
    Verdict.INCONCLUSIVE: "it reaches across the margin of {margin}, so more samples are needed",
}


def _sentence(verdict: Verdict, found: Comparison, margin: float, higher_is_better: bool) -> str:
    ratio = found.scale is Scale.RATIO
    figures = [_percent(value - 1) if ratio else f"{value:+.4g}" for value in (found.estimate, found.low, found.high)]
    better = "higher" if higher_is_better else "lower"
    meaning = MEANING[verdict].format(margin=f"{100 * margin:.4g} %" if ratio else f"{margin:.4g}")
    return (
        f"New is {figures[0]} against base ({better} is better), {100 * found.level:.4g} % interval {figures[1]} to "
        f"{figures[2]} over {found.n} {found.unit}: {meaning}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %"
