"""A search chooses trials of a space; it repeats itself for the same seed and never invents any."""

from collections.abc import Iterator

import pytest
from factories import GRID, complete, trial

from zbench.analysis.view import view_of
from zbench.config import CacheConfig, DBCacheConfig, ParallelConfig, SearchConfig
from zbench.search import Search, load_search, preview
from zbench.search.grid import GridSearch
from zbench.space import Space, arrange
from zbench.trial import Trial


def cached(n: int) -> Trial:
    return trial(DBCacheConfig(residual_diff_threshold=0.01 * (n + 1)))


def random(n: int, seed: int = 0) -> SearchConfig:
    target = "zbench.search.random_choice:RandomSearch"
    return SearchConfig(name="random", target=target, n_trials=n, seed=seed)


def asked(search: Search) -> Iterator[Trial]:
    while (trial := search.ask()) is not None:
        yield trial


def trials(space: Space) -> list[Trial]:
    return [placed.trial for placed in space.placed]


def chosen(space: Space, n: int, seed: int = 0) -> list[str]:
    """Labels of what a random search asks for, but the reference."""
    return [t.label for t in asked(load_search(random(n, seed), space)) if t.trial_id != t.reference.trial_id]


def test_a_grid_is_everything_in_the_order_of_the_space() -> None:
    space = arrange([cached(n) for n in range(3)])
    assert list(asked(GridSearch(space, GRID))) == trials(space)
    assert len(space.placed) == 4 and space.placed[0].is_reference


def test_a_random_search_is_seeded_keeps_the_order_and_brings_the_reference() -> None:
    space = arrange([cached(n) for n in range(100)])
    first = chosen(space, 10, seed=1)
    assert first == chosen(space, 10, seed=1) and len(set(first)) == 10
    order = [p.trial.label for p in space.placed]
    assert first == sorted(first, key=order.index)
    assert first != chosen(space, 10, seed=2)
    everything = list(asked(load_search(random(10, 1), space)))
    assert len(everything) == 11 and everything[0] == space.placed[0].trial


def test_a_larger_number_begins_with_the_trials_of_a_smaller_one() -> None:
    """So the same run folder can be gone on with."""
    space = arrange([cached(n) for n in range(50)])
    assert set(chosen(space, 5)) < set(chosen(space, 20)) < set(chosen(space, 50))


def test_more_trials_than_points_is_the_whole_grid() -> None:
    space = arrange([cached(n) for n in range(3)])
    assert list(asked(load_search(random(9), space))) == trials(space)


def test_the_same_trials_are_chosen_in_whatever_order_they_were_typed() -> None:
    typed = [cached(n) for n in range(20)]
    assert set(chosen(arrange(typed), 4)) == set(chosen(arrange(typed[::-1]), 4))


def test_what_cannot_work_is_left_out_only_where_it_was_drawn() -> None:
    bad = [trial(DBCacheConfig(Fn_compute_blocks=n + 20)) for n in range(10)]
    space = arrange([*bad, *(cached(n) for n in range(10))])
    drawn = preview(random(6), space).space
    assert 0 < len(drawn.pruned) < 6
    assert len(drawn.pruned) + sum(not p.is_reference for p in drawn.placed) == 6


def test_a_search_may_make_trials_of_its_own_and_have_them_held_to_the_references() -> None:
    space = arrange([cached(0)])
    placed = space.place(cached(7))
    assert placed.reference_id == placed.baseline_id == space.placed[0].trial.trial_id


def test_figures_are_told() -> None:
    space = arrange([trial(CacheConfig())])
    search = GridSearch(space, GRID)
    record = complete(trial(CacheConfig()))
    search.tell(record, view_of([record]).trials[0])
    assert search.ask() is space.placed[0].trial


@pytest.mark.parametrize("devices", [1, 2])
def test_only_keeps_the_reference_of_what_is_kept(devices: int) -> None:
    space = arrange([cached(0), trial(parallel=ParallelConfig(tp_size=devices))])
    kept = space.only([cached(0).trial_id])
    assert [p.trial.trial_id for p in kept.placed] == [trial().trial_id, cached(0).trial_id]
