"""What a search is after: an objective's figure is that of one image."""

from dataclasses import replace

import pytest
from factories import complete, trial

from zbench.analysis.view import view_of
from zbench.search.goals import GoalOptions, Goals


def test_replicas_side_by_side_make_no_image_sooner() -> None:
    """Two devices that make an image each in 1 s: two images/s, and 1 s for whoever waits for one."""
    row = view_of([complete(trial(), latency_s=1.0, spread=0.0)]).trials[0]
    side_by_side = replace(row, images=2, dp_size=2)
    goals = Goals(GoalOptions(), ["latency"])
    assert goals.standing(side_by_side).values == goals.standing(row).values == (pytest.approx(1.0),)
    assert goals.standing(replace(row, images=2)).values == (pytest.approx(0.5),), "of one call that makes two"


def test_what_is_not_to_be_trusted_has_no_values_however_fast_it_looks() -> None:
    """`zbench recommend` refuses it, so no search may prefer it."""
    row = view_of([complete(trial(), latency_s=1.0, spread=0.0)]).trials[0]
    goals = Goals(GoalOptions(), ["latency"])
    sure, doubted = goals.standing(row), goals.standing(replace(row, latency_median_s=0.1, caveats=("a busy machine",)))
    assert doubted.values is None and not doubted.is_feasible
    assert goals.rank(sure) < goals.rank(doubted)
