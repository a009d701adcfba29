"""The highest rate that meets an objective is found from what was told alone, so a stopped search goes on."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from factories import GRID, complete, failed, trial
from loads import loaded, under

from zbench.analysis.view import view_of
from zbench.config import CacheConfig, DBCacheConfig
from zbench.config.arrivals import MOST_REQUESTS
from zbench.record import Record
from zbench.search import Search, load_search, preview
from zbench.search.rates import LEAST_SHARE, next_rate, unloaded
from zbench.search.references import WithReferences
from zbench.space import arrange
from zbench.trial import Trial

SEEKING = under(arrivals="poisson", latency_objective_s=2.0, requests=3)
CACHED = replace(SEEKING, cache=DBCacheConfig())

Serve = Callable[[float], float]
"""How long a response takes at a rate."""


def ran(wanted: Trial, serve: Serve, alone_s: float = 1.0) -> Record:
    rate_per_s = wanted.workload.rate_per_s
    if rate_per_s is None:
        return complete(wanted, latency_s=alone_s, spread=0.0)
    return loaded(wanted, [(0.0, 0.0, 0.0, serve(rate_per_s))] * 3)


def told(search: Search, record: Record) -> None:
    search.tell(record, view_of([record]).trials[0])


def searched(search: Search, serve: Serve, **of: float) -> Iterator[Trial]:
    while (wanted := search.ask()) is not None:
        yield wanted
        told(search, ran(wanted, serve, **of))


def rates_of(trials: list[Trial]) -> list[float | None]:
    return [t.workload.rate_per_s for t in trials]


def test_it_begins_with_what_is_served_alone_and_closes_in_on_the_limit() -> None:
    """1 request/s is served; 1.3 is where responses take 2 s. Half is tried, then doubles until one misses."""
    asked = list(searched(load_search(GRID, arrange([SEEKING])), lambda rate: 2.0 if rate <= 1.3 else 3.0))
    assert rates_of(asked) == [None, 0.5, 1.0, 2.0, 1.41, 1.19, 1.3]
    assert asked[0] == unloaded(SEEKING) and {t.workload.latency_objective_s for t in asked[1:]} == {2.0}


def test_rates_fall_until_one_meets_the_objective() -> None:
    asked = list(searched(load_search(GRID, arrange([SEEKING])), lambda rate: 2.0 if rate <= 0.2 else 3.0))
    assert rates_of(asked)[:4] == [None, 0.5, 0.25, 0.125]


def test_where_no_rate_meets_it_the_search_ends() -> None:
    asked = list(searched(load_search(GRID, arrange([SEEKING])), lambda rate: 3.0))
    lowest = rates_of(asked)[-1]
    assert lowest is not None and LEAST_SHARE <= lowest < 2 * LEAST_SHARE


def test_where_one_request_alone_takes_longer_one_load_shows_that_no_rate_will_do() -> None:
    search = load_search(GRID, arrange([SEEKING]))
    assert rates_of(list(searched(search, lambda rate: 2.5, alone_s=2.5))) == [None, 0.2]


def test_where_every_rate_meets_it_the_search_ends_once_all_are_as_good_as_at_once() -> None:
    """Three requests of 1 s each: at 6 a second and more all are due while the first is served."""
    asked = list(searched(load_search(GRID, arrange([SEEKING])), lambda rate: 0.1))
    assert rates_of(asked) == [None, 0.5, 1.0, 2.0, 4.0, 8.0]


def test_no_rate_is_tried_that_no_config_may_have() -> None:
    asked = list(searched(load_search(GRID, arrange([SEEKING])), lambda rate: 0.1, alone_s=1e-6))
    assert rates_of(asked) == [None, MOST_REQUESTS]


def test_a_trial_that_fails_under_load_did_not_meet_it() -> None:
    search = load_search(GRID, arrange([SEEKING]))
    alone = search.ask()
    assert alone is not None
    told(search, complete(alone, latency_s=1.0, spread=0.0))
    first = search.ask()
    assert first is not None and search.ask() is None, "it waits for what is running"
    told(search, failed(first))
    following = search.ask()
    assert following is not None and following.workload.rate_per_s == 0.25


def test_a_search_told_the_same_again_asks_the_same_again() -> None:
    space = arrange([SEEKING, CACHED])
    whole = [t.trial_id for t in searched(load_search(GRID, space), lambda rate: 1.5 * rate)]
    stopped = searched(load_search(GRID, space), lambda rate: 1.5 * rate)
    assert [next(stopped).trial_id for _ in range(4)] == whole[:4]
    assert [t.trial_id for t in searched(load_search(GRID, space), lambda rate: 1.5 * rate)] == whole


def test_each_setting_has_a_rate_of_its_own_and_is_judged_against_what_was_made_without_load() -> None:
    search = WithReferences(load_search(GRID, arrange([SEEKING, CACHED])), GRID.target)
    reference = unloaded(SEEKING)
    placed = []
    while (each := search.next_placed()) is not None:
        placed.append(each)
        record = ran(each.trial, lambda rate: 1.5 * rate)
        search.tell(record, view_of([record]).trials[0])
    assert {p.reference_id for p in placed} == {p.baseline_id for p in placed} == {reference.trial_id}
    assert [p.trial.trial_id for p in placed].count(reference.trial_id) == 1
    assert unloaded(CACHED).trial_id in {p.trial.trial_id for p in placed}
    of_cache = [p.trial for p in placed if isinstance(p.trial.cache, DBCacheConfig) and p.trial.workload.is_load]
    assert of_cache and not [t for t in of_cache if t.workload.seeks_rate], "what seeks a rate is not run itself"


def test_two_objectives_share_what_is_measured_without_load() -> None:
    strict = under(arrivals="poisson", latency_objective_s=1.5, requests=3)
    asked = list(searched(load_search(GRID, arrange([SEEKING, strict])), lambda rate: 1.5 * rate))
    assert len(asked) == len({t.trial_id for t in asked}) and rates_of(asked).count(None) == 1


def test_other_trials_of_the_grid_are_asked_for_as_they_are() -> None:
    plain, load = trial(CacheConfig()), under(arrivals="concurrent", concurrency=4)
    space = arrange([plain, load, SEEKING])
    asked = list(searched(load_search(GRID, space), lambda rate: 3.0))
    assert {plain.trial_id, load.trial_id} <= {t.trial_id for t in asked}
    assert {p.trial.trial_id for p in preview(GRID, space)[0].placed} == {plain.trial_id, load.trial_id}


def test_a_rate_is_close_enough_within_ten_per_cent() -> None:
    assert next_rate([1.0], [1.1], 1.0, 40) is None and next_rate([1.0], [1.2], 1.0, 40) == 1.1
