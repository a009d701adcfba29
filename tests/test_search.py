"""A search chooses points; it repeats itself for the same seed and never invents any."""

from zbench.config import SearchConfig
from zbench.search import select


def test_a_grid_is_everything_in_order() -> None:
    assert select(list("abc"), SearchConfig(name="grid")) == ["a", "b", "c"]


def test_a_random_search_is_seeded_and_keeps_grid_order() -> None:
    points = list(range(100))
    first = select(points, SearchConfig(name="random", n_trials=10, seed=1))
    assert first == select(points, SearchConfig(name="random", n_trials=10, seed=1))
    assert first == sorted(first) and len(set(first)) == 10
    assert first != select(points, SearchConfig(name="random", n_trials=10, seed=2))


def test_more_trials_than_points_is_the_whole_grid() -> None:
    assert select([1, 2], SearchConfig(name="random", n_trials=9)) == [1, 2]
