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


def test_the_same_points_are_chosen_in_whatever_order_they_stand() -> None:
    search = SearchConfig(name="random", n_trials=3, seed=0)
    asked = [(compute, steps) for compute in ("eager", "compiled") for steps in (4, 2, 8)]
    chosen = select(asked, search)
    assert chosen == [point for point in asked if point in chosen], "in grid order"
    for permuted in (asked[::-1], sorted(asked)):
        assert set(select(permuted, search)) == set(chosen)


def test_a_key_says_what_a_point_is() -> None:
    search = SearchConfig(name="random", n_trials=2, seed=3)
    points = [("label 1", "b"), ("label 2", "a"), ("label 3", "c")]
    renamed = [("x", "c"), ("y", "b"), ("z", "a")]
    chosen = {what for _, what in select(points, search, key=lambda point: point[1])}
    assert {what for _, what in select(renamed, search, key=lambda point: point[1])} == chosen
