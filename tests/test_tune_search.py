"""Tune decides in its order by what it was told alone, tries what can win, and comes close to the grid's best."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from factories import TURBO, complete, failed
from golden_files import assert_golden
from surfaced import searched
from surfaces import surface
from tuned_surfaces import COMPILED, EAGER, FORCED, at, config, space_of, tried, tuned

from zbench.analysis.constraints import Limits
from zbench.analysis.view import view_of
from zbench.config import CacheConfig, DBCacheConfig, OffloadConfig, ParallelConfig, SCMConfig, SearchConfig
from zbench.errors import ConfigError
from zbench.methods.cache.bound import most_skips
from zbench.recommend.tuned import path_dict, path_text
from zbench.record import Reason, Record
from zbench.search import load_search
from zbench.search.tune import search as tune_search
from zbench.search.tune.budget import Budget, parse_budget
from zbench.search.tune.search import TuneSearch
from zbench.space import arrange
from zbench.trial import settled

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import tune_surfaces


@pytest.mark.parametrize("name", ["smooth", "cliffs", "inert"])
def test_it_comes_within_2_percent_of_the_grids_best_in_a_fifth_of_its_trials(name: str) -> None:
    """Goal of `benchmarks/tune_surfaces.py`, which has the hundred runs."""
    outcome = tune_surfaces.run(name, 1, 0.85, 24.0)
    assert outcome is not None and outcome.regret <= 0.02 and outcome.share <= 0.2


def test_a_search_told_the_same_again_asks_the_same_again() -> None:
    """So the same command goes on after kill -9."""
    on = surface("noisy", 3)
    runs = [[r.trial_id for r, _ in searched(TuneSearch(tune_surfaces.star(), config()), on)] for _ in range(2)]
    assert runs[0] == runs[1] and len(runs[0]) == len(set(runs[0]))


def test_what_is_predicted_not_to_fit_is_told_and_not_run() -> None:
    modes = [OffloadConfig(mode=mode) for mode in ("none", "text_encoder", "all")]
    search = tuned(space_of(offloads=modes), surface("smooth"), max_vram_gib=16)
    (story,) = search.stories
    assert story.decider.best is not None and story.decider.best.trial.offload.mode == "all"
    assert "is predicted to need 23.2 GiB of 16" in story.decider.not_tried.values()
    assert "offload=all; 15.0 of 16 GiB predicted" in story.decider.decisions[0].said


def test_a_misprediction_moves_more_instead_of_giving_up() -> None:
    """Everything is predicted to need 1 GiB; what was measured says otherwise."""
    on, modes = surface("smooth"), [OffloadConfig(mode=mode) for mode in ("none", "text_encoder", "all")]
    search = TuneSearch(space_of(offloads=modes), config(max_vram_gib=16), predict=lambda _: 1.0)
    list(searched(search, on))
    best = search.stories[0].decider.best
    assert best is not None and best.trial.offload.mode == "all"


def test_what_auto_stands_for_is_decided_again_for_each_split() -> None:
    """`compute=fast` is one way to compute: gather keeps layers apart, and a ring has another kernel."""
    words = replace(COMPILED, qkv="auto", rope="auto", text="compiled", decode="compiled", graphs="auto")
    words = replace(words, attention_backend="auto")
    splits = [
        ParallelConfig(),
        *(ParallelConfig(vae="split", **degree) for degree in ({"gather_size": 2}, {"ring_size": 2})),
    ]
    space = arrange([at(compute=settled(words, "cuda", split, TURBO), parallel=split) for split in splits])
    search = tuned(space, surface("smooth"))
    decider = search.stories[0].decider
    assert decider.choices.computes == (settled(words, "cuda", ParallelConfig(), TURBO),)
    assert {"none fast", "none g2 vae:split fast", "none r2 vae:split fast"} <= set(tried(search))
    assert not decider.not_tried


def test_nothing_that_fits_ends_it_before_anything_is_tried() -> None:
    search = tuned(space_of(), surface("smooth"), max_vram_gib=1)
    (story,) = search.stories
    assert not story.decider.told and "nothing is predicted to fit into 1 GiB" in story.decider.decisions[0].said
    text = path_text(search)
    assert "how it computes: not decided, as nothing that was asked for can run" in text
    assert "Next: looser limits" in text and "larger --budget" not in text


def test_forced_masks_are_bisected_and_without_a_limit_the_largest_alone_is_tried() -> None:
    caches = (CacheConfig(), *FORCED)
    limited = tried(tuned(space_of(caches=caches), surface("smooth"), min_ssim=0.9))
    assert sum(label.startswith("forced") for label in limited) <= 3
    unlimited = tried(tuned(space_of(caches=caches), surface("smooth")))
    assert [label for label in unlimited if label.startswith("forced")] == ["forced_ultra_F1B0"]


def test_a_family_that_cannot_skip_enough_is_not_tried_and_says_why() -> None:
    shy = DBCacheConfig(max_warmup_steps=7)
    search = tuned(space_of(caches=(CacheConfig(), *FORCED, shy)), surface("smooth"))
    assert shy.max_warmup_steps == 7 and not any("W7" in label for label in tried(search))
    why = search.stories[0].decider.not_tried["F1B0_W7_MC3_R0.24 and the like"]
    assert why.startswith("skips 1 of 8 steps at most, which buys no more than 1.13× over none")


def test_pieces_of_work_have_a_path_each() -> None:
    small = replace(TURBO, height=512, width=512)
    both = arrange([at(compute=c, pipeline=p) for c in (EAGER, COMPILED) for p in (TURBO, small)])
    search = tuned(both, surface("smooth"))
    assert [story.work for story in search.stories] == [
        "zimage_turbo 1024×1024, 8 steps",
        "zimage_turbo 512×512, 8 steps",
    ]
    assert all(story.ended and len(story.decider.told) == 2 for story in search.stories)


def test_a_budget_in_trials_ends_it_and_says_what_was_not_decided() -> None:
    search = tuned(tune_surfaces.star(), surface("smooth"), min_ssim=0.85, budget=3)
    (story,) = search.stories
    assert search.spent.trials == 3 and search.ran_out and not story.ended
    text = path_text(search)
    assert "compiled and 3 more" not in text and "the budget ended it before none compiled, none compiled graph" in text
    assert "Next: a larger --budget tries none compiled, none compiled graph" in text
    assert "Budget: 3 of 3 trials" in text and "it ended the search." in text


def test_a_decision_that_the_budget_kept_from_beginning_is_not_said_to_be_made() -> None:
    search = tuned(tune_surfaces.star(), surface("smooth"), min_ssim=0.85, budget=1)
    assert search.stories[0].decider.undecided() == ["skipping"]
    assert "what is skipped: not decided; the budget ended it before forced_" in path_text(search)


def test_what_is_skipped_has_its_share_of_a_budget() -> None:
    """Half of six trials: the base and two other ways to compute. The rest is for devices and for what is skipped."""
    search = tuned(tune_surfaces.star(), surface("smooth"), min_ssim=0.85, budget=6)
    decider = search.stories[0].decider
    assert tried(search)[:3] == ["none", "none compiled", "none compiled graph"]
    assert tried(search)[3] == "none u2 compiled graph" and tried(search)[-1].startswith("forced")
    assert decider.cut("compute")[0].trial.label == "none compiled qkv:fused rope:real ffn:fused"


def test_a_budget_in_seconds_counts_what_records_say_so_that_it_goes_on_after_a_kill() -> None:
    """The clock stands still, as for records that are told again: each trial's own seconds count."""
    search = tuned(tune_surfaces.star(), surface("smooth"), budget="60s")
    assert search.ran_out and 50 < search.spent.seconds < 70, "the last one began within it"


def test_several_works_share_a_budget() -> None:
    small = replace(TURBO, height=512, width=512)
    both = arrange([at(c, pipeline=p) for c in (CacheConfig(), *FORCED) for p in (TURBO, small)])
    search = tuned(both, surface("smooth"), min_ssim=0.9, budget=4)
    assert [len(story.decider.told) for story in search.stories] == [2, 2]


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("10min", Budget(seconds=600)),
        ("600s", Budget(seconds=600)),
        ("1.5h", Budget(seconds=5400)),
        (30, Budget(None, 30)),
    ],
)
def test_budgets_are_seconds_minutes_hours_or_trials(text: str | int, budget: Budget) -> None:
    assert parse_budget(text, "--budget") == budget


@pytest.mark.parametrize("text", ["", "ten", "-3", "0", "1.5", "10 parsecs", "0s", "nan", "99999999h"])
def test_what_is_no_budget_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget="):
        parse_budget(text, "--budget")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_ssim": 2}, "--min-ssim=2"),
        ({"min_sim": 0.9}, "search.options"),
        ({"objective": "speed"}, "search.options"),
        ({"skips": "magic"}, "must be one of bisect, thresholds, masks"),
        ({"holdout_seeds": [0]}, "holdout_seeds"),
    ],
)
def test_options_that_cannot_be_meant_are_one_error(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_search(config(**options), space_of())


def test_a_trial_out_of_memory_is_tried_with_more_offload() -> None:
    modes = [OffloadConfig(mode=mode) for mode in ("none", "all")]
    search = TuneSearch(space_of(offloads=modes), config(), predict=lambda _: None)
    first = search.ask()
    assert first is not None and first.offload.mode == "none"
    search.tell(*_told(replace(failed(first), reason=Reason("out_of_memory", "no memory"))))
    second = search.ask()
    assert second is not None and second.offload.mode == "all"


def test_what_took_the_place_of_the_baseline_is_the_baseline() -> None:
    modes = [OffloadConfig(mode=mode) for mode in ("none", "all")]
    search = TuneSearch(space_of(offloads=modes), config(), predict=lambda _: None)
    for make in (lambda of: replace(failed(of), reason=Reason("out_of_memory", "no memory")), complete):
        wanted = search.ask()
        assert wanted is not None
        search.tell(*_told(replace(make(wanted), reference_id=wanted.trial_id, baseline_id=wanted.trial_id)))
    baseline = search.stories[0].decider.baseline
    assert baseline is not None and baseline.trial.offload.mode == "all"


def test_one_that_fails_is_named_and_the_rest_goes_on() -> None:
    search = TuneSearch(space_of(computes=(EAGER, COMPILED)), config(), predict=lambda _: None)
    while (wanted := search.ask()) is not None:
        search.tell(*_told(failed(wanted) if wanted.compute.compile else complete(wanted)))
    (story,) = search.stories
    assert story.ended and "compiled failed" in story.decider.decisions[1].said


def test_nothing_is_said_of_the_speed_of_what_failed() -> None:
    """Whole graphs skip no step, so other ways to compute have a second look; one that failed has none."""
    computes, caches = (EAGER, COMPILED, replace(COMPILED, graphs="all")), (CacheConfig(), *FORCED)
    search = TuneSearch(space_of(computes, caches), config(), predict=lambda _: None)
    while (wanted := search.ask()) is not None:
        fails, latency_s = wanted.compute == COMPILED, 0.1 if wanted.compute.graphs == "all" else 1.0
        search.tell(*_told(failed(wanted) if fails else complete(wanted, latency_s=latency_s)))
    decider = search.stories[0].decider
    assert decider.best is not None and decider.best.trial.compute.graphs == "all"
    assert "none compiled with skipping" not in decider.not_tried


def _told(record: Record):  # type: ignore[no-untyped-def]
    return record, view_of([record]).trials[0]


def test_another_search_may_decide_what_is_skipped() -> None:
    """The seam: it has the space in which everything else is decided."""
    caches = [CacheConfig(), DBCacheConfig(max_warmup_steps=2)]
    search = tuned(space_of((EAGER, COMPILED), caches), surface("smooth"), min_ssim=0.85, skips="thresholds")
    skipping = [told.trial for told in search.stories[0].decider.told.values() if told.trial.cache.method != "none"]
    assert 1 < len(skipping) <= 8 and all(of.compute.compile for of in skipping)


@pytest.mark.parametrize("limit", [flag for flag in vars(Limits()) if flag not in ("max_vram_gib", "max_latency_s")])
def test_it_has_every_limit_on_images(limit: str) -> None:
    """So it looks for the one that skips most within that, and not for every pattern."""
    assert load_search(SearchConfig("t", tune_search.SKIPS["thresholds"][0], options={limit: 0.5}), space_of())
    assert limit in tune_search.SKIPS["thresholds"][1]


def test_a_search_that_makes_other_work_decides_nothing_here() -> None:
    """Successive halving begins with fewer samples."""
    caches = [CacheConfig(), DBCacheConfig(max_warmup_steps=2), DBCacheConfig(max_warmup_steps=4)]
    with pytest.raises(ConfigError, match="HalvingSearch: asks for other work"):
        tuned(space_of(caches=caches), surface("smooth"), skips="zbench.search.halving:HalvingSearch")


def test_a_mask_of_ones_own_skips_what_it_does_not_compute() -> None:
    forced = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", steps_mask="11101011")
    assert most_skips(forced, 8) == most_skips(replace(forced, scm_policy="dynamic"), 8) == 2


def test_most_skips_bounds_what_any_surface_skips() -> None:
    on = surface("rugged", 5)
    for cache in tune_surfaces.CACHES:
        skipped, _ = on.skipping(at(cache), ("a prompt", 0))
        assert len(skipped) <= most_skips(cache, TURBO.steps)


def test_the_path_reads_so() -> None:
    search = tuned(tune_surfaces.star(), surface("smooth", 1), min_ssim=0.85, max_vram_gib=24)
    assert_golden("tune.txt", path_text(search) + "\n")
    told = path_dict(search)
    assert [step["question"] for step in told["works"][0]["path"]][:4] == ["fit", "compute", "devices", "skipping"]
