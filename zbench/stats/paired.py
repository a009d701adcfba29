"""How much faster one run of a workload is than another, from samples that are paired by what was generated.

Prompts and seeds are not alike: a threshold skips other steps for each, so their times have several centres and
the median over all of them jumps from one to the next when a single image is made once more. Hence a centre for
each pair, in which alike is compared with alike, and the mean over pairs, which is the time of the whole workload.

One disturbed request must not decide. Of three samples of a pair the median leaves it out. Of two that lie further
apart than APART the one that took less counts. A pair with one sample is left out where its ratio lies far from those
of all other pairs. Of many ratios of turns the centre is Hodges' and Lehmann's, which needs a third fewer than a
median for the same width.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from zbench.stats.estimate import median
from zbench.stats.signed_rank import hodges_lehmann
from zbench.stats.spread import median_absolute_deviation

Pair = TypeVar("Pair", bound=Hashable)

APART = 1.1
"""Two samples of one pair that differ by more are not noise: something slowed one of them."""

FAR = 1.25
"""A pair's ratio that differs by more from the others', and by FAR_SIGMAS of their scatter, is no ratio of settings."""

FAR_SIGMAS = 5.0
LEAST_TO_JUDGE = 5
"""Of fewer pairs none is far from the others."""

OF_A_MEDIAN = math.pi / 2
"""How much more a median of normal samples varies than their mean does."""

OF_MANY, OF_A_CENTRE = 5, math.pi / 3
"""From so many ratios of turns on their centre is Hodges' and Lehmann's; how much more it varies than their mean."""

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t at 97.5 % with 1, 2, … degrees of freedom."""


@dataclass(frozen=True)
class SpeedUp:
    """A ratio of times, and the variance of its logarithm with the degrees of freedom it was estimated with."""

    ratio: float
    variance: float | None = None  # None: too few samples to say
    freedom: float = math.inf

    def after(self, other: "SpeedUp", further: float = 0.0) -> "SpeedUp":
        """Their product, with a `further` variance that is known."""
        variances = [(self.variance, self.freedom), (other.variance, other.freedom), (further, math.inf)]
        return SpeedUp(self.ratio * other.ratio, *_summed(variances))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None where too few samples were there to say."""
        if self.variance is None:
            return None
        factor = math.exp(_t(self.freedom) * math.sqrt(self.variance))
        return self.ratio / factor, self.ratio * factor


def pair_medians(samples: Iterable[tuple[Pair, float]]) -> dict[Pair, float]:
    """The median of each pair's samples, pairs in order of first appearance."""
    return {pair: median(of_pair) for pair, of_pair in _by_pair(samples).items()}


def paired_speedup(own: Sequence[tuple[Pair, float]], baseline: Sequence[tuple[Pair, float]]) -> float | None:
    """The ratio of `speedup_between`."""
    found = speedup_between(own, baseline)
    return None if found is None else found.ratio


def speedup_between(own: Sequence[tuple[Pair, float]], baseline: Sequence[tuple[Pair, float]]) -> SpeedUp | None:
    """Mean of the baseline's medians over mean of one's own, over the pairs that both have: measured at two times.

    `own` and `baseline` are (pair, seconds) of each sample. None if they share no pair, or if own medians add
    up to 0.
    """
    every, others = _by_pair(own), _by_pair(baseline)
    shared = [pair for pair in every if pair in others]
    ours, theirs = ({pair: _less_disturbed(side[pair]) for pair in shared} for side in (every, others))
    own_s = {pair: median(ours[pair]) for pair in shared}
    baseline_s = {pair: median(theirs[pair]) for pair in shared}
    if sum(own_s.values()) <= 0 or min(baseline_s.values(), default=0) <= 0:
        return None
    if min(own_s.values()) > 0:
        single = {pair for pair in shared if min(len(every[pair]), len(others[pair])) == 1}
        shared = _without_far({pair: math.log(baseline_s[pair] / own_s[pair]) for pair in shared}, single)
    ratio = sum(baseline_s[pair] for pair in shared) / sum(own_s[pair] for pair in shared)
    if min(own_s[pair] for pair in shared) <= 0:
        return SpeedUp(ratio)
    scatter = [_scatter(side, weights, shared) for side, weights in ((ours, own_s), (theirs, baseline_s))]
    if all(variance is None for variance, _ in scatter):  # one sample of each: pairs alone can differ
        ratios = [math.log(baseline_s[pair] / own_s[pair]) for pair in shared]
        return SpeedUp(ratio, *_of_the_mean(ratios))
    return SpeedUp(ratio, *_summed(scatter))


def speedup_by_turns(turns: Sequence[tuple[Pair, float, float]]) -> SpeedUp | None:
    """The same from (pair, own seconds, baseline's seconds) of neighbours in one window: what drifts befalls both.

    A pair's ratio is that of its neighbours; pairs weigh as the baseline's time for them. None for no turns.
    """
    by_pair: dict[Pair, list[tuple[float, float]]] = {}
    for pair, own_s, baseline_s in turns:
        if own_s > 0 and baseline_s > 0:
            by_pair.setdefault(pair, []).append((own_s, baseline_s))
    kept = {pair: _less_disturbed_turns(of_pair) for pair, of_pair in by_pair.items()}
    logs = {pair: [math.log(b / a) for a, b in of_pair] for pair, of_pair in kept.items()}
    centres = {pair: _centre(of_pair) for pair, of_pair in logs.items()}
    shared = _without_far(centres, {pair for pair, of_pair in by_pair.items() if len(of_pair) == 1})
    if not shared:
        return None
    theirs = {pair: median(_less_disturbed([baseline_s for _, baseline_s in kept[pair]])) for pair in shared}
    ours = {pair: theirs[pair] * math.exp(-centres[pair]) for pair in shared}
    ratio = sum(theirs.values()) / sum(ours.values())
    ratios = {pair: [b / a for a, b in kept[pair]] for pair in shared}
    variance, freedom = _scatter(ratios, ours, shared, many=OF_A_CENTRE)
    if variance is None:
        variance, freedom = _of_the_mean([centres[pair] for pair in shared])
    return SpeedUp(ratio, variance, freedom)


def _by_pair(samples: Iterable[tuple[Pair, float]]) -> dict[Pair, list[float]]:
    by_pair: dict[Pair, list[float]] = {}
    for pair, sample in samples:
        by_pair.setdefault(pair, []).append(sample)
    return by_pair


def _less_disturbed(samples: list[float]) -> list[float]:
    """Of two that lie apart the smaller; else all, of which a median leaves out what is far."""
    return [min(samples)] if len(samples) == 2 and max(samples) > APART * min(samples) else samples


def _less_disturbed_turns(turns: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of two whose ratios lie apart the one that took less as a whole: drift slows both sides of a turn."""
    if len(turns) != 2:
        return turns
    ratios = [baseline_s / own_s for own_s, baseline_s in turns]
    if max(ratios) <= APART * min(ratios):
        return turns
    return [min(turns, key=lambda turn: turn[0] * turn[1])]


def _without_far(ratios: Mapping[Pair, float], single: set[Pair]) -> list[Pair]:
    """The pairs, without those of a single sample whose logarithm of a ratio is far from all others'."""
    pairs = list(ratios)
    if len(pairs) < LEAST_TO_JUDGE:
        return pairs
    centre = median(list(ratios.values()))
    scatter = median_absolute_deviation(list(ratios.values()))
    far = max(math.log(FAR), FAR_SIGMAS * scatter)
    return [pair for pair in pairs if pair not in single or abs(ratios[pair] - centre) <= far]


def _near(logs: Sequence[float]) -> list[float]:
    """Without those that are further from the median than noise."""
    centre = median(logs)
    near = max(math.log(APART), FAR_SIGMAS * median_absolute_deviation(logs))
    return [x for x in logs if abs(x - centre) <= near]


def _centre(logs: Sequence[float]) -> float:
    return median(logs) if len(logs) < OF_MANY else hodges_lehmann(_near(logs))[0]


def _scatter(
    samples: Mapping[Pair, Sequence[float]],
    weights: Mapping[Pair, float],
    pairs: Sequence[Pair],
    many: float = OF_A_MEDIAN,
) -> tuple[float | None, float]:
    """Variance of the logarithm of the pairs' weighted sum, from how samples of one pair scatter, all pairs pooled;
    with its degrees of freedom. What is further from its pair's median than noise is left out.

    `many`: how much more the centre of OF_MANY samples of a pair varies than their mean."""
    squares, freedom = 0.0, 0
    kept: dict[Pair, int] = {}
    factors: dict[Pair, float] = {}
    for pair in pairs:
        every = [math.log(sample) for sample in samples[pair] if sample > 0]
        logs = _near(every)
        kept[pair] = len(logs)
        factors[pair] = 1.0 if len(logs) <= 2 else OF_A_MEDIAN if len(every) < OF_MANY else many
        mean = sum(logs) / len(logs)
        squares += sum((x - mean) ** 2 for x in logs)
        freedom += len(logs) - 1
    if not freedom:
        return None, math.inf
    total = sum(weights[pair] for pair in pairs)
    of_one = squares / freedom
    variance = sum((weights[pair] / total) ** 2 * of_one / count * factors[pair] for pair, count in kept.items())
    return variance, freedom


def _of_the_mean(logs: Sequence[float]) -> tuple[float | None, float]:
    """Variance of their mean, and its degrees of freedom."""
    if len(logs) < 2:
        return None, math.inf
    mean = sum(logs) / len(logs)
    return sum((x - mean) ** 2 for x in logs) / (len(logs) - 1) / len(logs), len(logs) - 1


def _summed(parts: Sequence[tuple[float | None, float]]) -> tuple[float | None, float]:
    """The sum of independent variances, and its degrees of freedom (Welch 1947); None where one is not known."""
    known = [(variance, freedom) for variance, freedom in parts if variance is not None]
    if len(known) < len(parts):
        return None, math.inf
    total = sum(variance for variance, _ in known)
    below = sum(variance**2 / freedom for variance, freedom in known)
    return total, total**2 / below if below > 0 else math.inf


def _t(freedom: float) -> float:
    """Student's t at 97.5 %, of whole degrees of freedom rounded down."""
    whole = max(1, math.floor(freedom)) if math.isfinite(freedom) else 0
    if 0 < whole <= len(T_975):
        return T_975[whole - 1]
    return 1.96 + (2.4 / whole if whole else 0.0)
