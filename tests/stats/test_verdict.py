"""The verdict's rules to the letter, on both kinds of margin and both ways round; what is not known never passes."""

import itertools
import math

import pytest

from zbench.stats import Comparison, Kind, Refusal, RefusalReason, Scale, Verdict, correct_for_many, judge


def ratio(low: float, high: float) -> Comparison:
    return Comparison((low + high) / 2, low, high, 24, "blocks", 0.95, Scale.RATIO, "test")


def difference(low: float, high: float) -> Comparison:
    return Comparison((low + high) / 2, low, high, 8, "pairs", 0.95, Scale.DIFFERENCE, "test")


RULES = [  # with a margin of 3 %
    (1.031, 1.05, Verdict.SLOWER),
    (1.03, 1.05, Verdict.INCONCLUSIVE),  # lo > 1 + m, not equal to it
    (0.95, 0.969, Verdict.FASTER),
    (0.95, 0.97, Verdict.NO_SLOWER),  # hi < 1 - m, not equal to it
    (0.97, 1.03, Verdict.SAME),  # the margins themselves are within
    (0.99, 1.01, Verdict.SAME),
    (1.01, 1.02, Verdict.SAME),  # surely slower, but not by more than the margin
    (0.969, 1.03, Verdict.NO_SLOWER),
    (0.5, 1.0, Verdict.NO_SLOWER),
    (0.98, 1.031, Verdict.INCONCLUSIVE),
    (0.5, 1.5, Verdict.INCONCLUSIVE),
]


@pytest.mark.parametrize(("low", "high", "verdict"), RULES)
def test_the_rules_for_a_relative_margin(low, high, verdict):
    assert judge(ratio(low, high), 0.03).verdict is verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.03, -0.011, Verdict.SLOWER),
        (-0.03, -0.01, Verdict.INCONCLUSIVE),
        (0.011, 0.03, Verdict.FASTER),
        (-0.01, 0.01, Verdict.SAME),
        (-0.01, 0.02, Verdict.NO_SLOWER),
        (-0.011, 0.02, Verdict.INCONCLUSIVE),
    ],
)
def test_similarity_may_fall_by_a_hundredth(low, high, verdict):
    # quality.ssim:-0.01; lower being better is the mirror image
    assert judge(difference(low, high), 0.01, Kind.ABSOLUTE, higher_is_better=True).verdict is verdict
    assert judge(difference(-high, -low), 0.01, Kind.ABSOLUTE).verdict is verdict


def test_throughput_is_judged_the_other_way_round():
    assert judge(ratio(0.9, 0.96), 0.03, higher_is_better=True).verdict is Verdict.SLOWER
    assert judge(ratio(1.04, 1.1), 0.03, higher_is_better=True).verdict is Verdict.FASTER
    assert judge(ratio(0.98, 1.1), 0.03, higher_is_better=True).verdict is Verdict.NO_SLOWER


def test_every_interval_has_one_verdict_and_none_passes_that_reaches_above_the_margin():
    ends = [0.9, 0.97, 0.98, 1.0, 1.02, 1.03, 1.04, 1.1]
    for low, high in itertools.combinations_with_replacement(ends, 2):
        verdict = judge(ratio(low, high), 0.03).verdict
        assert verdict.passes == (high <= 1.03)
        assert (verdict is Verdict.SLOWER) == (low > 1.03)


@pytest.mark.parametrize("reason", list(RefusalReason))
def test_a_refusal_is_never_a_pass_and_says_why(reason):
    found = judge(Refusal(reason, "a new sample is NaN"), 0.03)
    assert found.verdict is Verdict.INCONCLUSIVE and not found.verdict.passes
    assert found.reason == "Nothing can be said: a new sample is NaN."


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_interval_that_is_not_finite_is_never_a_pass(bad):
    assert judge(ratio(bad, 1.0), 0.03).verdict is Verdict.INCONCLUSIVE
    assert judge(ratio(1.0, bad), 0.03).verdict is Verdict.INCONCLUSIVE


def test_the_reason_is_a_sentence_with_the_numbers():
    assert judge(ratio(1.013, 1.027), 0.01).reason == (
        "New is +2.00 % against base (lower is better), 95 % interval +1.30 % to +2.70 % over 24 blocks: "
        "all of it is worse than the margin of 1 % allows."
    )
    assert judge(difference(-0.02, 0.004), 0.01, Kind.ABSOLUTE, higher_is_better=True).reason == (
        "New is -0.008 against base (higher is better), 95 % interval -0.02 to +0.004 over 8 pairs: "
        "it reaches across the margin of 0.01, so more samples are needed."
    )


@pytest.mark.parametrize("margin", [-0.01, math.nan, math.inf, 1.0])
def test_a_senseless_margin_is_an_error(margin):
    with pytest.raises(ValueError, match="margin"):
        judge(ratio(1.0, 1.0), margin)


def test_a_ratio_has_no_absolute_margin():
    with pytest.raises(ValueError, match="does not go with"):
        judge(ratio(1.0, 1.0), 0.01, Kind.ABSOLUTE)
    with pytest.raises(ValueError, match="does not go with"):
        judge(difference(0.0, 0.0), 0.01)


def test_many_trials_share_the_error_of_one():
    assert correct_for_many(1) == 0.95
    assert correct_for_many(20) == pytest.approx(0.9975)
    for trials, level in ((0, 0.95), (3, 1.0), (3, math.nan)):
        with pytest.raises(ValueError):
            correct_for_many(trials, level)
