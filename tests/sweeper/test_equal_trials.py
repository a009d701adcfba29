"""Of trials that are known to be equal one is measured, whatever was typed first; a plan names it for the others."""

from dataclasses import replace
from itertools import permutations

import pytest
from factories import trial

from zbench.cli import main
from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, SCMConfig, SearchConfig
from zbench.engines.reference import ReferenceEngine
from zbench.search.random_choice import RandomSearch
from zbench.space import Space, arrange
from zbench.trial import Trial

IDLE = DBCacheConfig(max_warmup_steps=8)
FORCED = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static")
COMPILED = ComputeConfig(compile=True)


def arranged(*trials: Trial) -> Space:
    return arrange(trials, plainest=ReferenceEngine().plainest)


def labels(space: Space) -> tuple[list[str], list[str]]:
    return [p.trial.label for p in space.placed], [p.trial.label for p, _ in space.pruned]


def test_a_trial_that_skips_nothing_is_the_reference_that_runs_anyway() -> None:
    space = arranged(trial(IDLE))
    assert labels(space) == (["none"], ["F1B0_W8_MC3_R0.24"])
    (_, reason), reference = space.pruned[0], space.placed[0].trial
    assert reason == (
        f"equal to none (trial {reference.trial_id}), which stands for it: "
        "cache.max_warmup_steps=8 leaves none of 8 steps to be skipped"
    )
    assert space.equal_to == {trial(IDLE).trial_id: reference.trial_id} and space.placed[0].is_reference


def test_nothing_is_left_out_for_a_trial_that_does_not_run() -> None:
    """The uncached compiled trial was not asked for: the one that is equal to it stays."""
    compiled, more = trial(IDLE, compute=COMPILED), trial(replace(IDLE, max_warmup_steps=9), compute=COMPILED)
    assert labels(arranged(compiled)) == (["none", "F1B0_W8_MC3_R0.24 compiled"], [])
    assert labels(arranged(compiled, more))[0] == ["none", "F1B0_W8_MC3_R0.24 compiled"]
    assert labels(arranged(compiled, trial(compute=COMPILED))) == (
        ["none", "none compiled"],
        ["F1B0_W8_MC3_R0.24 compiled"],
    )


def test_which_of_equal_trials_runs_does_not_depend_on_what_was_typed_first() -> None:
    thresholds = [trial(replace(FORCED, residual_diff_threshold=value)) for value in (0.1, 0.2, 0.3)]
    spaces = [arranged(*order) for order in permutations(thresholds)]
    assert {tuple(p.trial.trial_id for p in space.placed) for space in spaces} == {
        (thresholds[0].reference.trial_id, thresholds[0].trial_id)
    }
    assert all(len(space.pruned) == 2 and "residual_diff_threshold=" in space.pruned[0][1] for space in spaces)


def test_a_baseline_runs_although_it_is_equal_to_the_reference() -> None:
    def idle_baseline(reference: Trial) -> Trial:
        return replace(reference, cache=IDLE)

    space = arrange([trial(DBCacheConfig())], idle_baseline, plainest=ReferenceEngine().plainest)
    assert [p.is_baseline for p in space.placed if p.trial.cache == IDLE] == [True] and space.pruned == ()


def test_what_a_search_draws_comes_with_the_trial_that_stands_for_it() -> None:
    compiled = [trial(replace(IDLE, max_warmup_steps=steps), compute=COMPILED) for steps in (8, 9)]
    space = arranged(*compiled, trial(DBCacheConfig(), compute=COMPILED))
    (left_out, _), *_ = space.pruned
    drawn = space.only([left_out.trial.trial_id])
    assert labels(drawn) == (["none", "F1B0_W8_MC3_R0.24 compiled"], ["F1B0_W9_MC3_R0.24 compiled"])
    random = SearchConfig(name="random", target="zbench.search.random_choice:RandomSearch", n_trials=3)
    assert len(RandomSearch(space, random).space.placed) == 3


def test_trials_that_only_might_be_equal_both_run() -> None:
    high, higher = (trial(DBCacheConfig(residual_diff_threshold=value)) for value in (5.0, 6.0))
    assert len(arranged(high, higher, trial(CacheConfig())).placed) == 3


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("cache=dbcache", "cache.max_warmup_steps=8"), "cache.max_warmup_steps=8 leaves none of 8 steps"),
        (
            ("cache=dbcache", "cache.residual_diff_threshold=0"),
            "cache.residual_diff_threshold=0 lets no step",
        ),
        (("cache=scm", "cache.residual_diff_threshold=0"), "cache.residual_diff_threshold=0 lets no step"),
        (("cache=dbcache", "cache.Fn_compute_blocks=30", "hardware=b300"), "compute all 30 blocks"),
    ],
)
def test_a_plan_says_it(overrides: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *overrides]) == 0
    out = capsys.readouterr().out
    assert said in out and "equal to none" in out
