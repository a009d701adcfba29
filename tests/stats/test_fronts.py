"""The front of any number of goals: by its definition, and the same as of two goals."""

import random

import pytest

from zbench.stats import pareto_front
from zbench.stats.fronts import nondominated


def test_a_point_that_is_worse_in_one_goal_and_better_in_none_is_left_out() -> None:
    points = [(1, 1, 1), (1, 1, 0), (0, 2, 0), (0, 0, 0)]
    assert nondominated(points) == [0, 2]


def test_equal_points_do_not_dominate_each_other() -> None:
    assert nondominated([(1, 2), (1, 2), (0, 2)]) == [0, 1]
    assert nondominated([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_of_two_goals_it_is_the_front_that_the_report_draws(seed: int) -> None:
    rng = random.Random(seed)
    points = [(float(rng.randrange(12)), float(rng.randrange(12))) for _ in range(60)]
    assert nondominated(points) == sorted(pareto_front(points))
