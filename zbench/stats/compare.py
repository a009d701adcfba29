"""New against base: a ratio or a difference with its interval, or the reason why there is none.

Two kinds of data, two methods; `outcome.py` has what they return. Data that cannot be compared are refused, never
repaired: a round that is missing or NaN may be the very one that went wrong.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from zbench.stats.bootstrap import Floats, means_of_medians, resampled_interval
from zbench.stats.estimate import median
from zbench.stats.outcome import Compared, Comparison, Refusal, RefusalReason, Scale
from zbench.stats.signed_rank import fewest_samples, hodges_lehmann

Pair = TypeVar("Pair", bound=Hashable)
Rounds = Sequence[tuple[Pair, float | None]]

LARGEST_LOG = 709.0  # e to the power of it is still a float


class BlockSamples(NamedTuple):
    """Samples of base and new measured next to each other in time, such as the turns of one A B B A."""

    base: Sequence[float | None]
    new: Sequence[float | None]


def compare_rounds(
    new: Rounds[Pair], base: Rounds[Pair], *, scale: Scale = Scale.RATIO, level: float = 0.95, seed: int = 0
) -> Compared:
    """Two runs measured one after the other: the mean over pairs of each pair's median, new over (or less) base.

    `new` and `base` are (pair, seconds) in time order; the k-th rounds of all pairs form cycle k, and the statistic is
    that of `paired_speedup` (inverted) over complete cycles. The interval is the percentile bootstrap's over whole
    cycles of each run. What changed between the two runs besides the software is not in it: for that, interleave.

    Pairs that only `new` has are left out; one that only `base` has is missing and refused. Also refused: fewer cycles
    than can enclose a median at `level` (at 95 % below 6), and what `_unfit` says. ValueError for a bad `level`.
    """
    fewest = _fewest(level)
    if not new or not base:
        return Refusal(RefusalReason.NOTHING_TO_COMPARE, f"{'the new run' if not new else 'the base'} has no rounds")
    new_by_pair, base_by_pair = _by_pair(new), _by_pair(base)
    shared = [pair for pair in base_by_pair if pair in new_by_pair]
    if not shared:
        return Refusal(RefusalReason.NOTHING_TO_COMPARE, "the two runs share no pair of prompt and seed")
    if len(shared) < len(base_by_pair):
        gone = len(base_by_pair) - len(shared)
        return Refusal(
            RefusalReason.MISSING, f"{gone} of the base's {len(base_by_pair)} pairs were not made by the new run"
        )
    new_rows, base_rows = _cycles(new_by_pair, shared), _cycles(base_by_pair, shared)
    refusal = _unfit(scale, (value for _, value in new), (value for _, value in base))
    if refusal:
        return refusal
    n = min(len(new_rows), len(base_rows))
    if n < fewest:
        needs = f"where a {level:.4g} interval needs {fewest}, {fewest * len(shared)} in all"
        return Refusal(RefusalReason.TOO_FEW_SAMPLES, f"{n} rounds of each prompt and seed, {needs}")
    new_table, base_table = _numbers(new_rows), _numbers(base_rows)

    def statistic(tables: list[Floats]) -> Floats:
        ours, theirs = means_of_medians(tables[0]), means_of_medians(tables[1])
        return ours / theirs if scale is Scale.RATIO else ours - theirs

    ours, theirs = _mean_of_medians(new_table), _mean_of_medians(base_table)
    low, high = resampled_interval([new_table, base_table], statistic, level, seed)
    centre = ours / theirs if scale is Scale.RATIO else ours - theirs
    return _finite(Comparison(centre, low, high, n, "cycles", level, scale, "percentile bootstrap over cycles"))


def compare_blocks(
    blocks: Sequence[BlockSamples], *, scale: Scale = Scale.RATIO, level: float = 0.95, unit: str = "blocks"
) -> Compared:
    """Base and new measured interleaved: the Hodges–Lehmann centre over blocks of log(new/base), or of new - base.

    Within a block it is the median over all pairs of a new sample less a base one (of logs, for a ratio), so a drift
    that is straight over an A B B A cancels; over blocks the interval is the exact one of the signed ranks, so no
    spread is estimated and a disturbed block counts as one sign, however disturbed. At 95 % it needs 6 blocks. `unit`
    is what words call them. Refused: see `_unfit`, and a side of a block without samples. ValueError for a bad `level`.
    """
    fewest = _fewest(level)
    if not blocks:
        return Refusal(RefusalReason.NOTHING_TO_COMPARE, "there are no blocks")
    if any(not block.new or not block.base for block in blocks):
        return Refusal(RefusalReason.MISSING, "a block has no samples of one side")
    refusal = _unfit(scale, (v for block in blocks for v in block.new), (v for block in blocks for v in block.base))
    if refusal:
        return refusal
    shifts = [block_shift(block, scale) for block in blocks]
    centre, interval = hodges_lehmann(shifts, level)
    if interval is None:
        return Refusal(
            RefusalReason.TOO_FEW_SAMPLES, f"{len(blocks)} of the {fewest} {unit} that a {level:.4g} interval needs"
        )
    figures = [_exp(v) if scale is Scale.RATIO else v for v in (centre, *interval)]
    method = "Hodges-Lehmann over blocks, signed-rank interval"
    return _finite(Comparison(figures[0], figures[1], figures[2], len(blocks), unit, level, scale, method))


def _unfit(scale: Scale, new: Iterable[float | None], base: Iterable[float | None]) -> Refusal | None:
    """Why samples cannot be compared: missing, NaN or infinite; for a ratio also negative or zero."""
    sides = (("new", list(new), RefusalReason.ZERO_NEW), ("base", list(base), RefusalReason.ZERO_BASE))
    for name, values, _ in sides:
        if any(value is None for value in values):
            return Refusal(RefusalReason.MISSING, f"a {name} sample is missing")
    for name, values, _ in sides:
        if any(math.isnan(_number(value)) for value in values):
            return Refusal(RefusalReason.NAN, f"a {name} sample is NaN")
        if any(math.isinf(_number(value)) for value in values):
            return Refusal(RefusalReason.INFINITE, f"a {name} sample is infinite")
    for name, values, zero in reversed(sides) if scale is Scale.RATIO else ():
        if any(_number(value) < 0 for value in values):
            return Refusal(RefusalReason.NEGATIVE, f"a {name} sample is negative, and a ratio of such says nothing")
        if any(value == 0 for value in values):
            return Refusal(zero, f"a {name} sample is zero, and a ratio with it says nothing: use an absolute margin")
    return None


def _finite(comparison: Comparison) -> Compared:
    """The comparison, unless its numbers ran out of a float's range."""
    figures = (comparison.estimate, comparison.low, comparison.high)
    if all(math.isfinite(figure) for figure in figures):
        return comparison
    return Refusal(RefusalReason.INFINITE, "the samples are too far apart for a finite result")


def _exp(log: float) -> float:
    return math.exp(log) if log < LARGEST_LOG else math.inf


def _fewest(level: float) -> int:
    if not 0 < level < 1:
        raise ValueError(f"level={level}: must lie between 0 and 1")
    return fewest_samples(level)


def _by_pair(rounds: Rounds[Pair]) -> dict[Pair, list[float | None]]:
    by_pair: dict[Pair, list[float | None]] = {}
    for pair, value in rounds:
        by_pair.setdefault(pair, []).append(value)
    return by_pair


def _cycles(by_pair: Mapping[Pair, Sequence[float | None]], pairs: Sequence[Pair]) -> list[list[float | None]]:
    """One row a complete cycle, one column a pair."""
    complete = min(len(by_pair[pair]) for pair in pairs)
    return [[by_pair[pair][k] for pair in pairs] for k in range(complete)]


def _numbers(rows: Iterable[Iterable[float | None]]) -> list[list[float]]:
    return [[_number(value) for value in row] for row in rows]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _mean_of_medians(table: Sequence[Sequence[float]]) -> float:
    return sum(median(column) for column in zip(*table, strict=True)) / len(table[0])


def block_shift(block: BlockSamples, scale: Scale) -> float:
    """How far new lies from base: the Hodges–Lehmann shift of two samples.

    Of two turns each it is the difference of their medians. Of a launch's twelve it scatters less: 2.0 % where those
    differed by 2.9 % over 69 recorded launches of equal code.
    """
    new, base = ([_number(sample) for sample in side] for side in (block.new, block.base))
    if scale is Scale.RATIO:
        new, base = ([math.log(number) for number in side] for side in (new, base))
    return median([ours - theirs for ours in new for theirs in base])
