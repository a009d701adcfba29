"""How much faster one run of a workload is than another, from samples that are paired by what was generated.

Prompts and seeds are not alike: a threshold skips other steps for each, so their times have several centres and
the median over all of them jumps from one to the next when a single image is made once more. Hence a median for
each pair, in which alike is compared with alike, and the mean over pairs, which is the time of the whole workload.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from zbench.stats.estimate import median

Pair = TypeVar("Pair", bound=Hashable)


def pair_medians(samples: Iterable[tuple[Pair, float]]) -> dict[Pair, float]:
    """The median of each pair's samples, pairs in order of first appearance."""
    by_pair: dict[Pair, list[float]] = {}
    for pair, sample in samples:
        by_pair.setdefault(pair, []).append(sample)
    return {pair: median(of_pair) for pair, of_pair in by_pair.items()}


def paired_speedup(own: Sequence[tuple[Pair, float]], baseline: Sequence[tuple[Pair, float]]) -> float | None:
    """Mean of the baseline's medians over mean of one's own, over the pairs that both have.

    `own` and `baseline` are (pair, seconds) of each sample. None if they share no pair, or if own medians add
    up to 0.
    """
    own_medians, baseline_medians = pair_medians(own), pair_medians(baseline)
    shared = [pair for pair in own_medians if pair in baseline_medians]
    own_s = _total(own_medians, shared)
    return _total(baseline_medians, shared) / own_s if own_s > 0 else None


def _total(medians: Mapping[Pair, float], pairs: Iterable[Pair]) -> float:
    return sum(medians[pair] for pair in pairs)
