"""Which thresholds skip the same steps follows from the differences that were compared at one of them."""

import math

import pytest
from factories import trial
from surfaces import SURFACES, Surface, surface

from zbench.config import DBCacheConfig
from zbench.search.thresholds.patterns import (
    HIGHEST_COMPARED,
    Span,
    Walk,
    Wobble,
    between,
    gaps,
    short,
    span_at,
    walks_of,
)

SAMPLES = [("a red circle", 0), ("a blue square", 0), ("a blue square", 1)]


def walks(known: Surface, threshold: float, **of: int) -> list[Walk]:
    setting = trial(DBCacheConfig(residual_diff_threshold=threshold, **of))
    calls = [(sample, *known.skipping(setting, sample)) for sample in SAMPLES]
    return [walk for _, walk in walks_of(calls)]


def test_a_span_ends_at_the_largest_difference_skipped_and_the_smallest_that_was_not() -> None:
    one = Walk((5, 7), {4: 0.3, 5: 0.2, 6: 0.26, 7: 0.1})
    assert span_at(0.25, [one]) == Span(0.2, 0.26)
    other = Walk((6,), {4: 0.4, 5: 0.3, 6: 0.22, 7: 0.27})
    assert span_at(0.25, [one, other]) == Span(0.22, 0.26), "a change of any sample is one"


@pytest.mark.parametrize("name", SURFACES)
@pytest.mark.parametrize("threshold", [0.05, 0.15, 0.2, 0.3, 0.9])
def test_the_next_threshold_either_way_skips_other_steps_and_none_within_does(name: str, threshold: float) -> None:
    known = surface(name, 4)
    steady = Surface(name, 4) if known.wobble else known
    before = walks(steady, threshold, max_warmup_steps=2)
    span = span_at(threshold, before)
    assert span is not None and span.has(threshold)
    for inside in (math.nextafter(span.above, 1), (span.above + min(span.upto, 1)) / 2, min(span.upto, 5.0)):
        assert [w.skipped for w in walks(steady, inside, max_warmup_steps=2)] == [w.skipped for w in before]
    for outside in (span.above, math.nextafter(span.upto, math.inf)):
        if 0 < outside < math.inf:
            assert [w.skipped for w in walks(steady, outside, max_warmup_steps=2)] != [w.skipped for w in before]


def test_nothing_skipped_has_no_lower_end_and_all_skipped_no_higher_one() -> None:
    assert span_at(0.1, [Walk((), {4: 0.3, 5: 0.2})]) == Span(0.0, 0.2)
    assert span_at(0.5, [Walk((4, 5), {4: 0.3, 5: 0.2})]) == Span(0.3, math.inf)


def test_from_one_on_nothing_is_compared_so_all_such_thresholds_are_equal() -> None:
    """And a difference of 1 or more is skipped from there on, not from itself on."""
    assert span_at(1.0, [Walk((4, 5, 6), {})]) == Span(HIGHEST_COMPARED, math.inf)
    assert span_at(0.5, [Walk((), {4: 1.7})]) == Span(0.0, HIGHEST_COMPARED)
    assert math.nextafter(HIGHEST_COMPARED, math.inf) == 1.0


@pytest.mark.parametrize(
    "walk",
    [Walk((), {}), Walk((4, 5), {}), Walk((4,), {4: 0.3}), Walk((), {4: 0.1})],
    ids=["nothing was compared", "a mask decides", "skipped above the threshold", "not skipped below it"],
)
def test_differences_that_do_not_decide_say_nothing(walk: Walk) -> None:
    assert span_at(0.2, [walk]) is None


def test_gaps_are_what_no_span_has() -> None:
    assert gaps([]) == [Span(0.0, math.inf)]
    assert gaps([Span(0.3, math.inf), Span(0.1, 0.2)]) == [Span(0.0, 0.1), Span(0.2, 0.3)]
    assert gaps([Span(0.1, 0.25), Span(0.2, 0.3)], Span(0.15, 0.4)) == [Span(0.3, 0.4)], "spans may overlap"


def test_a_threshold_between_is_in_the_gap_short_and_parts_the_differences() -> None:
    assert between(Span(0.0, 0.4), ()) == 0.2
    assert 0.21 < between(Span(0.0, 0.4), (0.2, 0.21, 0.22, 0.5)) <= 0.22
    assert between(Span(0.0, 0.4), (0.1, 0.3), liked=(0.24, 0.35)) == 0.24
    assert between(Span(HIGHEST_COMPARED, math.inf), (), liked=(5.0,)) == 5.0
    assert between(Span(0.4, math.inf), ()) < 1.0, "differences are told below 1 alone"


@pytest.mark.parametrize(
    ("low", "high"), [(0.1, 0.2), (0.123456, 0.1234561), (0.3, math.nextafter(0.3, 1)), (0.0, 1e-9)]
)
def test_a_short_number_lies_above_the_one_and_up_to_the_other(low: float, high: float) -> None:
    assert low < short(low, high) <= high


def test_what_varies_from_call_to_call_is_seen_where_the_same_was_skipped_before() -> None:
    seen = Wobble()
    seen.add("a", Walk((5,), {4: 0.3, 5: 0.2}))
    seen.add("a", Walk((4,), {4: 0.3, 5: 0.5}))
    seen.add("b", Walk((5,), {4: 0.9, 5: 0.4}))
    assert seen.relative == 0, "after another step was skipped, and of another sample, differences are others"
    seen.add("a", Walk((), {4: 0.3, 5: 0.25}))
    assert seen.relative == pytest.approx(0.2)
