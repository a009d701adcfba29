"""How many times as long one run takes as another, with an interval from few rounds as well as from many.

From 6 whole cycles on it is `compare_rounds`. Of fewer the rounds of all pairs are pooled, each over what its pair
takes on both sides together. That costs as many degrees of freedom as there are pairs, so the interval is widened
(`tests/stats/test_ratio.py` simulates what it then covers).
"""

import math
from collections.abc import Hashable, Sequence
from typing import TypeVar

from zbench.stats.bootstrap import Floats, means_of_medians, resampled_interval
from zbench.stats.compare import compare_rounds
from zbench.stats.estimate import median
from zbench.stats.outcome import Compared, Comparison, Refusal, RefusalReason, Scale
from zbench.stats.paired import pair_medians

Pair = TypeVar("Pair", bound=Hashable)

LEAST = 6
"""Rounds of either side: what a median's interval needs."""


def ratio_of_rounds(new: Sequence[tuple[Pair, float]], base: Sequence[tuple[Pair, float]]) -> Compared:
    """New over base, (pair, seconds) of each round, with the 95 % interval; what `compare_rounds` refuses, but for too
    few cycles, is refused."""
    whole = compare_rounds(new, base)
    if not isinstance(whole, Refusal) or whole.reason is not RefusalReason.TOO_FEW_SAMPLES:
        return whole
    both = pair_medians(new), pair_medians(base)
    level_of = {pair: (both[0][pair] + both[1][pair]) / 2 for pair in both[1]}
    ours = [value / level_of[pair] for pair, value in new if pair in level_of]
    theirs = [value / level_of[pair] for pair, value in base]
    n = min(len(ours), len(theirs))
    if n < LEAST or n <= len(level_of):
        return Refusal(
            RefusalReason.TOO_FEW_SAMPLES, f"{n} rounds, where an interval needs {max(LEAST, len(level_of) + 1)}"
        )

    def statistic(tables: list[Floats]) -> Floats:
        return means_of_medians(tables[0]) / means_of_medians(tables[1])

    centre = median(ours) / median(theirs)
    low, high = resampled_interval([[[value] for value in ours], [[value] for value in theirs]], statistic)
    wider = math.sqrt(n / (n - len(level_of)))
    low, high = (centre * (bound / centre) ** wider for bound in (min(low, centre), max(high, centre)))
    return Comparison(centre, low, high, n, "rounds", 0.95, Scale.RATIO, "percentile bootstrap over pooled rounds")
