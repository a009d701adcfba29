"""A budget goes to what still fits into it, and the answer says what it ended and what more would try."""

from dataclasses import replace

import pytest
from factories import complete
from tuned_surfaces import COMPILED, EAGER, FORCED, config, space_of

from zbench.analysis.view import view_of
from zbench.config import CacheConfig
from zbench.measurement import Cold
from zbench.methods.cache.bound import most_skips
from zbench.recommend.tuned import path_text
from zbench.search.tune.decide import Decider, trial_of
from zbench.search.tune.search import TuneSearch, process_of
from zbench.trial import Trial

FUSED = replace(COMPILED, qkv="fused")
CACHES = (CacheConfig(), *FORCED)
LATENCY_S = {"none": 1.0, "none compiled": 0.6, "none compiled qkv:fused": 0.7}
COMPILE_S = {"none": 0.0, "none compiled": 30.0, "none compiled qkv:fused": 70.0}
"""A window is of eight requests, and loading takes 2 s: so eager takes 11 s, compiled 38 s, and then 6 s."""


def way(of: Trial) -> str:
    """How it computes."""
    return replace(of, cache=CacheConfig()).label


def driven(search: TuneSearch) -> Decider:
    """The search with records of those times, its clock standing still."""
    last = None
    while (wanted := search.ask()) is not None:
        trial = trial_of(wanted)
        compile_s = 0.0 if process_of(trial) == last else COMPILE_S[way(trial)]
        cold = Cold() if process_of(trial) == last else Cold(load_s=1.0, first_latency_s=1.0, compile_s=compile_s)
        record = complete(trial, latency_s=latency_s(trial), warmup_latencies_s=[1 + compile_s], cold=cold, spread=0.0)
        search.tell(record, view_of([record]).trials[0])
        last = process_of(trial)
    return search.stories[0].decider


def latency_s(of: Trial) -> float:
    return LATENCY_S[way(of)] * (1 - 0.1 * most_skips(of.cache, 8))


def searching(*computes: object, budget: str) -> TuneSearch:
    space = space_of((EAGER, *computes), CACHES)  # type: ignore[arg-type]
    options = config(budget=budget, min_ssim=0.9, holdout_seeds=[])
    return TuneSearch(space, options, predict=lambda _: None, clock=lambda: 0.0)


def skipping(decider: Decider) -> list[Trial]:
    return [told.trial for told in decider.told.values() if most_skips(told.trial.cache, 8)]


def test_what_code_took_to_compile_does_not_keep_the_next_trial_from_beginning() -> None:
    """Of 70 s 49 are spent; a trial on what is compiled by then takes 6 s, and none takes 38 s again."""
    search = searching(COMPILED, budget="70s")
    decider = driven(search)
    assert {way(of) for of in skipping(decider)} == {"none compiled"} and not decider.undecided()
    assert search.spent.seconds < 70 and not search.ran_out


def test_where_the_chosen_way_has_no_room_another_that_has_is_tried() -> None:
    """Of 150 s 127 are spent; going back to the best way to compute takes 38 s, and what is loaded 7 s."""
    search = searching(COMPILED, FUSED, budget="150s")
    decider = driven(search)
    assert {way(of) for of in skipping(decider)} == {"none compiled qkv:fused"}
    assert search.ran_out and search.least_left_s == pytest.approx(32 + 5.8)
    text = path_text(search)
    assert "what is skipped: not decided; the budget ended it before forced_medium_F1B0 compiled" in text
    assert "another way to compute, with skipping" in text
    assert "it ended the search, as the shortest trial left would take about 37.80 s." in text


def test_a_way_to_compute_that_was_put_off_for_its_share_comes_when_there_is_room() -> None:
    """Compiled would take more than half of 20 s; skipping on eager leaves none for it, and that is said."""
    search = searching(COMPILED, budget="20s")
    assert [each.trial.label for each in driven(search).cut("compute")] == ["none compiled"]
    assert "the budget ended it before none compiled" in path_text(search)
    assert "Next: a larger --budget tries none compiled" in path_text(search)
    decider = driven(searching(COMPILED, budget="40s"))
    assert not decider.cut("compute") and any(told.trial.compute == COMPILED for told in decider.told.values())


def test_no_budget_puts_nothing_off() -> None:
    space = space_of((EAGER, COMPILED), CACHES)
    search = TuneSearch(space, config(min_ssim=0.9), predict=lambda _: None, clock=lambda: 0.0)
    assert not driven(search).put_off and not search.ran_out and search.stories[0].ended
