"""The Pareto front of points whose answer can be seen, and what it covers."""

import random

import pytest

from zbench.stats import hypervolume, pareto_front


def test_known_points():
    #   b is beaten by c, e by d; a, c and d are each best somewhere.
    points = {"a": (1.0, 5.0), "b": (2.0, 2.0), "c": (3.0, 4.0), "d": (5.0, 1.0), "e": (4.0, 1.0)}
    names = list(points)
    assert [names[i] for i in pareto_front(list(points.values()))] == ["a", "c", "d"]


def test_equal_points_do_not_beat_each_other():
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)]) == [0, 1]


def test_a_tie_in_one_coordinate_is_decided_by_the_other():
    assert pareto_front([(1.0, 1.0), (1.0, 2.0)]) == [1]
    assert pareto_front([]) == []


def test_every_point_off_the_front_is_beaten_by_one_on_it():
    rng = random.Random(7)
    points = [(rng.random(), rng.random()) for _ in range(200)]
    front = pareto_front(points)
    for i, (x, y) in enumerate(points):
        beaten = any(points[j][0] > x and points[j][1] > y for j in front)
        assert beaten != (i in front)


def test_it_is_the_front_of_the_definition_ties_included():
    rng = random.Random(3)
    for _ in range(200):
        points = [(rng.randrange(4) / 2, rng.randrange(4) / 2) for _ in range(rng.randrange(12))]
        kept = [
            i for i, (x, y) in enumerate(points) if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in points)
        ]
        assert pareto_front(points) == sorted(kept, key=lambda i: (points[i][0], -points[i][1], i))


def test_the_volume_of_known_points():
    """Two rectangles that overlap in a square of one: 2 + 2 - 1; and one that lies within."""
    assert hypervolume([(2.0, 1.0), (1.0, 2.0)]) == 3.0
    assert hypervolume([(2.0, 1.0), (1.0, 2.0), (1.0, 1.0), (0.5, 2.0)]) == 3.0
    assert hypervolume([(3.0, 3.0)], (1.0, 2.0)) == 2.0


def test_what_is_no_better_than_the_reference_in_one_coordinate_covers_nothing():
    assert hypervolume([]) == hypervolume([(0.0, 9.0), (9.0, 0.0), (-1.0, 5.0), (5.0, -1.0)]) == 0.0


def test_the_volume_is_the_share_of_cells_that_some_point_covers():
    rng = random.Random(5)
    for _ in range(50):
        points = [(rng.randrange(-2, 9), rng.randrange(-2, 9)) for _ in range(rng.randrange(12))]
        cells = sum(any(x > i and y > j for x, y in points) for i in range(9) for j in range(9))
        assert hypervolume(points) == pytest.approx(cells)


def test_the_volume_is_that_of_the_front():
    rng = random.Random(11)
    points = [(rng.random(), rng.random()) for _ in range(100)]
    assert hypervolume([points[i] for i in pareto_front(points)]) == pytest.approx(hypervolume(points))
