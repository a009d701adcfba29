"""Whether latencies have two modes: two values that requests take, with nothing between them. Standard library only.

A median of two modes is one of them by chance, and an interval from one to the other hides both. It refuses to call one
wild request a mode, or two prompts of different cost, or a level that changed once. How often noise without modes is
called so, and two modes are found, `tests/stats/test_modes.py` simulates.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from zbench.stats.estimate import median

Pair = TypeVar("Pair", bound=Hashable)

LEAST = 4
"""Samples under which nothing is said."""

ENOUGH = 6
"""Samples under which modes must lie FAR times as far apart, for their spread is hardly known; where they are over the
least of their pair, samples beyond one of each pair under which nothing is said."""

FAR = 2

IN_A_MODE = 2
"""Samples that make a mode; one is an outlier."""

SHARE = 0.15
"""Of the samples, which the smaller mode has at least."""

APART = 1.05
"""The least factor between what separates two modes: less is of no consequence."""

SIGMAS = 3
"""So many times the spread within a mode lies between them, more where a mode has few samples."""

FEW = 4
"""How much more: (1 + FEW / (samples - 1)) times."""

RESOLUTION = 0.001
"""A mode's relative spread is taken to be no less."""

OVER_LEAST = 1.5
"""How much more where values are over the least of their pair, which a few samples of each say badly."""

ROBUST = 5
"""Samples of a mode from which on the farthest is left out of its spread."""


@dataclass(frozen=True)
class Modes:
    """Two modes, each with its typical value and how many samples it has; the lower first."""

    low: float
    high: float
    n_low: int
    n_high: int
    is_high: tuple[bool, ...]  # of each sample, in the order given

    @property
    def is_shift(self) -> bool:
        """Whether all of one mode came before all of the other: a level that changed once, and no two modes."""
        return sum(one != other for one, other in zip(self.is_high, self.is_high[1:], strict=False)) == 1


def two_modes(samples: Iterable[tuple[Pair, float]]) -> Modes | None:
    """The two modes of `samples`, (pair, value) in time order, or None.

    Pairs may differ in cost. So either the values as they are have two modes, and of IN_A_MODE samples in each there is
    one of the same pair in the other; or values over the least of their pair have, which lies in the lower mode
    wherever that was seen. The values of a mode are then those of the mean pair. Two modes are IN_A_MODE samples each
    and a gap between them of the factor APART and of SIGMAS times the larger spread within, both of the logarithms.
    There are none where a sample is no time: not finite, or 0 and less.
    """
    given = list(samples)
    if len(given) < LEAST or not all(math.isfinite(value) and value > 0 for _, value in given):
        return None
    pairs: list[Hashable] = [pair for pair, _ in given]
    logs = [math.log(value) for _, value in given]
    found = _found(logs)
    if found is not None and _of_one_cost(pairs, found.is_high):
        return found
    least: dict[Hashable, float] = {}
    for pair, value in zip(pairs, logs, strict=True):
        least[pair] = min(value, least.get(pair, math.inf))
    if len(least) == 1 or len(given) - len(least) < ENOUGH:
        return None
    mean = sum(map(math.exp, least.values())) / len(least)
    return _found([value - least[pair] for pair, value in zip(pairs, logs, strict=True)], mean, OVER_LEAST)


def _found(logs: Sequence[float], scale: float = 1.0, stricter: float = 1.0) -> Modes | None:
    """Of logarithms; `scale` is what their exponentials are multiplied by, `stricter` what SIGMAS is."""
    ordered = sorted(logs)
    split = _split(ordered, SIGMAS * stricter * (FAR if len(ordered) < ENOUGH else 1))
    if split is None:
        return None
    low, high = (scale * math.exp(median(part)) for part in (ordered[:split], ordered[split:]))
    return Modes(low, high, split, len(ordered) - split, tuple(value >= ordered[split] for value in logs))


def _of_one_cost(pairs: Sequence[Hashable], is_high: Sequence[bool]) -> bool:
    """Whether enough samples of each mode have one of their own pair in the other."""
    counts: dict[Hashable, list[int]] = {}
    for pair, high in zip(pairs, is_high, strict=True):
        counts.setdefault(pair, [0, 0])[high] += 1
    both = [count for count in counts.values() if min(count) > 0]
    return all(sum(count[mode] for count in both) >= IN_A_MODE for mode in (0, 1))


def _split(ordered: Sequence[float], sigmas: float) -> int | None:
    """How many of the sorted logarithms are in the lower of two modes; None where there are none."""
    n = len(ordered)
    fewest = max(IN_A_MODE, math.ceil(SHARE * n))
    best, at = 1.0, None
    for k in range(fewest, n - fewest + 1):
        gap = ordered[k] - ordered[k - 1]
        if gap < math.log(APART):
            continue
        spread = max(_spread(ordered[:k]), _spread(ordered[k:]), RESOLUTION)
        apart = gap / spread / sigmas / (1 + FEW / (min(k, n - k) - 1))
        if apart >= best:
            best, at = apart, k
    return at


def _spread(mode: Sequence[float]) -> float:
    """Sigma by the range of sorted samples, which of few says more than the median deviation does."""
    kept = mode
    if len(mode) >= ROBUST:
        kept = mode[1:] if mode[1] - mode[0] > mode[-1] - mode[-2] else mode[:-1]
    return (kept[-1] - kept[0]) / _RANGES.get(len(kept), _RANGES[max(_RANGES)])


_RANGES: Mapping[int, float] = {2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847}
"""The mean range of so many normal samples, in sigmas (Tippett 1925); that of 8 stands for more, and overstates."""
