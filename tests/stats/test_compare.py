"""Comparisons find the ratio that was put in, keep their rate of error, and refuse what cannot be compared."""

import math

import numpy as np
import pytest
import scipy.stats

from zbench.stats import (
    BlockSamples,
    Comparison,
    Refusal,
    RefusalReason,
    Scale,
    block_shift,
    compare_blocks,
    compare_rounds,
    hodges_lehmann,
    paired_speedup,
)

RUNS = 1000


def reason(outcome) -> RefusalReason:
    assert isinstance(outcome, Refusal), outcome
    return outcome.reason


def cycles(count: int, factor: float = 1.0, seed: int = 0, sigma: float = 0.02) -> list[tuple[str, float]]:
    """Rounds of three pairs whose times differ, in time order."""
    rng = np.random.default_rng(seed)
    times = {"a": 0.4, "b": 0.7, "c": 1.0}
    return [
        (pair, factor * time * math.exp(rng.normal(0, sigma))) for _ in range(count) for pair, time in times.items()
    ]


def blocks_of(ratios: list[float]) -> list[BlockSamples]:
    return [BlockSamples([1.0, 1.0], [ratio, ratio]) for ratio in ratios]


# Rounds of two runs


def test_the_ratio_of_two_runs_is_the_inverse_of_the_paired_speedup():
    new, base = cycles(10, 1.1, seed=1), cycles(12, seed=2)
    found = compare_rounds(new, base)
    assert found.estimate == pytest.approx(1 / paired_speedup(new, base))
    assert found.low < 1.1 < found.high
    assert (found.n, found.unit, found.scale) == (10, "cycles", Scale.RATIO)


def test_the_difference_of_two_runs_is_in_seconds():
    found = compare_rounds(cycles(10, 1.1, seed=1), cycles(12, seed=2), scale=Scale.DIFFERENCE)
    assert found.low < 0.1 * 2.1 / 3 < found.high


def test_a_higher_level_gives_a_wider_interval():
    new, base = cycles(12, seed=1), cycles(12, seed=2)
    at_95, at_99 = compare_rounds(new, base), compare_rounds(new, base, level=0.99)
    assert at_99.low < at_95.low < at_95.high < at_99.high


def test_what_slows_a_whole_cycle_widens_the_interval():
    # The same scatter of each round, once apart and once shared within a cycle of four pairs: twice as wide.
    rng = np.random.default_rng(3)
    base = [(pair, 1.0) for _ in range(20) for pair in "abcd"]
    widths = {"shared": 0.0, "apart": 0.0}
    for _ in range(20):
        for name, draws in (("shared", rng.normal(0, 0.05, (20, 1))), ("apart", rng.normal(0, 0.05, (20, 4)))):
            slow = np.exp(np.broadcast_to(draws, (20, 4))).ravel().tolist()
            found = compare_rounds([(pair, value) for (pair, _), value in zip(base, slow, strict=True)], base)
            widths[name] += found.high - found.low
    assert widths["shared"] == pytest.approx(2 * widths["apart"], rel=0.25)


def test_a_round_of_50_times_the_median_moves_the_ratio_little():
    new, base = cycles(12, seed=1), cycles(12, seed=2)
    new[4] = (new[4][0], 50 * new[4][1])
    found = compare_rounds(new, base)
    assert 0.97 < found.low < found.high < 1.03


def test_an_unfinished_cycle_is_left_out():
    new = cycles(10, seed=1)
    whole = compare_rounds(new, cycles(10, seed=2))
    assert compare_rounds([*new, ("a", 0.5)], cycles(10, seed=2)) == whole


def test_a_pair_that_was_not_made_is_missing():
    base = cycles(10)
    new = [(pair, value) for pair, value in base if pair != "c"]
    assert reason(compare_rounds(new, base)) is RefusalReason.MISSING
    assert isinstance(compare_rounds(base, new), Comparison)  # one more than the base has may be left out


# Interleaved blocks


@pytest.mark.parametrize("n", [6, 10, 25])
def test_the_location_and_its_interval_are_wilcoxons(n):
    shifts = np.random.default_rng(n).normal(0.02, 0.01, n)
    centre, (low, high) = hodges_lehmann(shifts.tolist())
    means = sorted((a + b) / 2 for i, a in enumerate(shifts) for b in shifts[i:])
    assert centre == pytest.approx(np.median(means))
    # The interval holds exactly the locations that scipy's test does not reject at 5 %.
    for inside, location in ((True, low + 1e-9), (True, high - 1e-9), (False, low - 1e-9), (False, high + 1e-9)):
        p_value = scipy.stats.wilcoxon(shifts - location, method="exact").pvalue
        assert (p_value > 0.05) == inside


@pytest.mark.parametrize("n", [6, 12, 20, 40, 60])
@pytest.mark.parametrize("noise", ["normal", "heavy tails", "bursts", "drift"])
def test_the_ratio_over_blocks_is_covered_at_its_rate(n, noise):
    rng = np.random.default_rng(31)
    logs = rng.normal(0, 0.02, (RUNS, n, 4))
    if noise == "heavy tails":
        logs = 0.02 * rng.standard_t(2, logs.shape)
    if noise == "bursts":  # one side of a block in six is disturbed
        logs[..., :2] += (rng.random((RUNS, n, 1)) < 1 / 12) * rng.uniform(0.1, 0.7, (RUNS, n, 1))
        logs[..., 2:] += (rng.random((RUNS, n, 1)) < 1 / 12) * rng.uniform(0.1, 0.7, (RUNS, n, 1))
    if noise == "drift":  # 0.3 % a round, in the order A B B A
        logs += 0.003 * (4 * np.arange(n)[:, None] + np.array([0, 3, 1, 2]))
    rounds = np.exp(logs)
    covered = 0
    for run in rounds.tolist():
        found = compare_blocks([BlockSamples(block[:2], [1.02 * value for value in block[2:]]) for block in run])
        covered += found.low <= 1.02 <= found.high
    slack = 3 * math.sqrt(0.95 * 0.05 / RUNS)
    assert 0.95 - slack <= covered / RUNS <= 0.97 + slack  # discrete ranks: 96.9 % with 6 blocks


def test_blocks_disturbed_on_one_side_do_not_move_the_ratio_far():
    rng = np.random.default_rng(8)
    calm = np.exp(rng.normal(0.02, 0.01, 20)).tolist()
    found = compare_blocks(blocks_of([*calm[:18], 50.0, 0.02]))
    assert found.low < 1.02 < found.high
    assert found.high - found.low < 0.03


def test_differences_over_blocks_may_be_negative_or_zero():
    found = compare_blocks([BlockSamples([0.0], [-0.02])] * 8, scale=Scale.DIFFERENCE)
    assert (found.estimate, found.low, found.high) == (-0.02, -0.02, -0.02)


def test_a_constant_metric_has_an_interval_of_no_width():
    found = compare_blocks(blocks_of([1.02] * 6))
    assert (found.low, found.high) == (pytest.approx(1.02), pytest.approx(1.02))
    assert compare_rounds([("a", 3.0)] * 6, [("a", 2.0)] * 6).low == 1.5


def test_a_block_without_one_side_is_missing():
    assert (
        reason(compare_blocks([BlockSamples([1.0], [1.0])] * 10 + [BlockSamples([1.0], [])])) is RefusalReason.MISSING
    )


# Values of pairs


# What is refused


BAD = [
    (None, RefusalReason.MISSING),
    (math.nan, RefusalReason.NAN),
    (math.inf, RefusalReason.INFINITE),
    (-math.inf, RefusalReason.INFINITE),
]
BAD_RATIO = [*BAD, (-1.0, RefusalReason.NEGATIVE)]


@pytest.mark.parametrize(("bad", "expected"), [*BAD_RATIO, (0.0, None)])
@pytest.mark.parametrize("side", ["new", "base"])
@pytest.mark.parametrize("place", [0, 7, 19])
def test_a_bad_sample_in_any_place_is_refused(bad, expected, side, place):
    expected = expected or (RefusalReason.ZERO_NEW if side == "new" else RefusalReason.ZERO_BASE)
    good = [("a", 1.0 + 0.01 * (k % 3)) for k in range(20)]
    worse = [*good[:place], ("a", bad), *good[place + 1 :]]
    assert reason(compare_rounds(*((worse, good) if side == "new" else (good, worse)))) is expected
    blocks = [BlockSamples([1.0], [v]) if side == "new" else BlockSamples([v], [1.0]) for _, v in worse]
    assert reason(compare_blocks(blocks)) is expected


@pytest.mark.parametrize(("bad", "expected"), BAD)
def test_a_difference_refuses_what_is_no_number(bad, expected):
    assert reason(compare_blocks([BlockSamples([1.0], [bad])] * 10, scale=Scale.DIFFERENCE)) is expected
    rounds = [("a", 1.0)] * 10
    assert reason(compare_rounds([*rounds, ("a", bad)], rounds, scale=Scale.DIFFERENCE)) is expected


def test_too_few_samples_are_refused_and_more_for_a_higher_level():
    assert reason(compare_blocks(blocks_of([1.0] * 5))) is RefusalReason.TOO_FEW_SAMPLES
    assert reason(compare_blocks(blocks_of([1.0] * 7), level=0.99)) is RefusalReason.TOO_FEW_SAMPLES
    assert isinstance(compare_blocks(blocks_of([1.0] * 8), level=0.99), Comparison)
    assert reason(compare_rounds(cycles(5), cycles(30))) is RefusalReason.TOO_FEW_SAMPLES
    assert reason(compare_rounds(cycles(30), cycles(7), level=0.99)) is RefusalReason.TOO_FEW_SAMPLES


def test_nothing_to_compare_is_said():
    assert reason(compare_blocks([])) is RefusalReason.NOTHING_TO_COMPARE
    assert reason(compare_rounds([], cycles(9))) is RefusalReason.NOTHING_TO_COMPARE
    assert reason(compare_rounds(cycles(9), [])) is RefusalReason.NOTHING_TO_COMPARE
    assert reason(compare_rounds(cycles(9), [("z", 1.0)] * 9)) is RefusalReason.NOTHING_TO_COMPARE


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_leaves_the_range_of_numbers_is_refused():
    assert reason(compare_blocks([BlockSamples([1e-308], [1e308])] * 8)) is RefusalReason.INFINITE
    assert reason(compare_rounds([("a", 1e308)] * 8, [("a", 1e-308)] * 8)) is RefusalReason.INFINITE


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
def test_a_level_out_of_range_is_an_error(level):
    with pytest.raises(ValueError, match="level"):
        compare_blocks(blocks_of([1.0] * 9), level=level)
    with pytest.raises(ValueError, match="level"):
        compare_rounds(cycles(9), cycles(9), level=level)


def test_a_block_of_several_turns_is_the_median_of_all_pairs_and_not_of_each_side() -> None:
    of_launch = BlockSamples([1.0, 2.0, 9.0], [1.0, 3.0, 4.0])
    assert block_shift(of_launch, Scale.DIFFERENCE) == 0.0, "the medians differ by 1"
    assert block_shift(BlockSamples([1.0, 3.0], [2.0, 5.0]), Scale.DIFFERENCE) == 1.5, (
        "of two turns each it is the same"
    )
