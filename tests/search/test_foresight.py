"""How many trials a search says that it takes: never fewer than come, and no number where nobody knows."""

from dataclasses import replace
from io import StringIO

import pytest
from factories import GRID, SCENES, complete, trial
from outside_code import Outside
from rich.console import Console
from surfaced import searched
from surfaces import surface

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig, Prompt, SearchConfig
from zbench.errors import ConfigError
from zbench.search import UNFORESEEN, Foresight, Search, foresight_of, load_search, preview
from zbench.space import Placed, Space, arrange
from zbench.sweeper.progress import SweepProgress

NINE = replace(SCENES, prompts=[Prompt(id=f"p{n}", text=f"prompt {n}") for n in range(9)])
SIX_STEPS = replace(trial(), pipeline=replace(trial().pipeline, steps=6))


def grid(settings: int = 20) -> Space:
    return arrange([trial(DBCacheConfig(residual_diff_threshold=0.02 * n), workload=NINE) for n in range(1, settings)])


def config(name: str, target: str, n_trials: int | None = None, **options: object) -> SearchConfig:
    return SearchConfig(name=name, target=f"zbench.search.{target}", n_trials=n_trials, options=options)


SEARCHES = {
    "grid": (GRID, grid()),
    "random": (config("random", "random_choice:RandomSearch", 5), grid()),
    "optuna": (config("optuna", "optuna.search:OptunaSearch", 7, startup=3), grid()),
    "all_of_optuna": (config("optuna", "optuna.search:OptunaSearch", 99, startup=3), grid(6)),
    "halving": (config("halving", "halving:HalvingSearch"), grid()),
    "halving_of_one": (config("halving", "halving:HalvingSearch"), grid(2)),
    "masks": (config("masks", "masks.search:MaskSearch", 256), arrange([SIX_STEPS])),
    "masks_by_greed": (config("masks", "masks.search:MaskSearch", 12, method="greedy", timed=2), arrange([SIX_STEPS])),
    "thresholds": (config("thresholds", "thresholds.search:ThresholdSearch", min_ssim=0.9), grid()),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_no_more_trials_come_than_a_search_says_and_no_fewer(name: str) -> None:
    """A trial whose images were judged and that is timed then is two."""
    found, space = SEARCHES[name]
    search = load_search(found, space)
    foresight = foresight_of(search)
    came = len(list(searched(search, surface("smooth"))))
    assert foresight.most is not None and foresight.least <= came <= foresight.most
    assert foresight.is_exact == (name in ("grid", "random", "optuna", "all_of_optuna"))


def test_optuna_takes_its_trials_and_what_they_are_held_to_and_not_the_whole_grid() -> None:
    assert foresight_of(load_search(*SEARCHES["optuna"])) == Foresight(8, 8)
    found, _ = SEARCHES["optuna"]
    with_reference = arrange([trial(workload=NINE), *(p.trial for p in grid().placed)])
    assert foresight_of(load_search(found, with_reference)) == Foresight(7, 8), "it may suggest the reference itself"


def test_of_thresholds_without_a_limit_nobody_knows_how_many() -> None:
    search = load_search(config("thresholds", "thresholds.search:ThresholdSearch"), grid())
    assert foresight_of(search) == Foresight(2, None)


OUTSIDE = """
from zbench.search import Foresight
class Untold:
    def __init__(self, space, config):
        self.space = space
    def ask(self): ...
    def tell(self, record, figures): ...
class Told(Untold):
    @property
    def foresight(self):
        return Foresight(2, 5)
class Number(Untold):
    foresight = 3
class Backwards(Untold):
    @property
    def foresight(self):
        return Foresight(5, 2)
"""


def from_outside(name: str, outside: Outside) -> Search:
    outside.module("foreseen", OUTSIDE)
    return load_search(SearchConfig(name=name, target=f"foreseen:{name}"), grid(), allow_code=True)


def test_one_from_outside_may_take_fewer_than_it_lists_and_others_unless_it_says_otherwise(outside: Outside) -> None:
    untold, told = (foresight_of(from_outside(name, outside)) for name in ("Untold", "Told"))
    assert untold == UNFORESEEN == Foresight(0, None) and told == Foresight(2, 5)
    assert preview(SearchConfig(name="x", target="foreseen:Told"), grid(), allow_code=True).foresight == UNFORESEEN


@pytest.mark.parametrize(
    ("name", "says"),
    [("Number", "Number.foresight gave int, not Foresight"), ("Backwards", "failed: ValueError: least=5, most=2")],
)
def test_a_foresight_that_is_none_is_one_error(name: str, says: str, outside: Outside) -> None:
    with pytest.raises(ConfigError, match=f"search.target=foreseen:{name}: .*{says}"):
        foresight_of(from_outside(name, outside))


def lines(known: Foresight) -> list[str]:
    out = StringIO()
    progress = SweepProgress(known, Console(file=out, width=200))
    for n in (1, 2):
        of = trial(DBCacheConfig(residual_diff_threshold=0.1 * n))
        placed = Placed(of, of.trial_id, of.trial_id)
        progress.started(placed)
        progress.added(of, None)
        progress.finished(placed, complete(of), view_of([complete(of)]).trials[0])
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("known", "begins"),
    [(Foresight(3, 9), "[2 of 9 at most] "), (Foresight(3, None), "[2] "), (Foresight(0, 1), "[2 of")],
)
def test_progress_shows_a_bound_or_a_count_and_no_eta(known: Foresight, begins: str) -> None:
    last = lines(known)[-1]
    assert last.startswith(begins) and "ETA" not in last and "(done)" not in last


def test_where_all_are_known_there_is_an_eta() -> None:
    first = lines(Foresight(3, 3))[0]
    assert first.startswith("[1/4] ") and "(ETA " in first, "three and one that was added"
