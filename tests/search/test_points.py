"""Trials as choices: every way ends at a trial of the space, and every trial has a way."""

from dataclasses import replace

from factories import trial

from zbench.config import CacheConfig, DBCacheConfig, OffloadConfig, SCMConfig
from zbench.search.optuna.points import NOT_THERE, Choice, Points
from zbench.space import arrange
from zbench.trial import Trial

METHOD, WARMUP, LIMIT = "cache.method", "cache.max_warmup_steps", "cache.residual_diff_threshold"


def cached(warmup: int, limit: float = 0.1) -> Trial:
    return trial(DBCacheConfig(max_warmup_steps=warmup, residual_diff_threshold=limit))


def keys(points: Points, of: Trial) -> list[str]:
    return [choice.key for choice in points.way_to(of.trial_id)]


def test_what_all_trials_share_is_no_choice() -> None:
    points = Points(arrange([cached(warmup) for warmup in (2, 4, 6)]))
    assert points.choices == [Choice(WARMUP, (2, 4, 6))] and points.choices[0].is_ordered


def test_a_way_leads_to_its_trial() -> None:
    asked = [trial(), *(cached(warmup, limit) for warmup in (2, 4) for limit in (0.1, 0.2, 0.3)), trial(SCMConfig())]
    points = Points(arrange(asked))
    for each in asked:
        way = points.way_to(each.trial_id)
        assert points.choose(lambda choice, way=way: way[choice]) == each.trial_id


def test_after_no_cache_there_is_no_threshold_to_choose() -> None:
    points = Points(arrange([trial(), cached(2, 0.1), cached(2, 0.2)]))
    assert keys(points, trial()) == [METHOD] and keys(points, cached(2, 0.1)) == [METHOD, LIMIT]


def test_a_trial_whose_way_is_settled_has_nothing_more_to_choose() -> None:
    """Two of four corners: once the first axis is chosen, so is the second."""
    points = Points(arrange([cached(2, 0.1), cached(4, 0.2)]))
    assert keys(points, cached(2, 0.1)) == [WARMUP]


def test_the_same_axis_with_other_values_is_another_choice() -> None:
    vae = [replace(cached(warmup), offload=OffloadConfig(mode="vae")) for warmup in (1, 3)]
    points = Points(arrange([cached(2), cached(4), *vae]))
    names = {points.name(choice) for choice in points.choices}
    assert names == {"offload.mode", f"{WARMUP} of 2, 4", f"{WARMUP} of 1, 3"}


def test_what_only_some_have_is_there_or_not() -> None:
    """Two methods that differ in more than their names: the name alone is a choice."""
    points = Points(arrange([trial(SCMConfig()), trial(DBCacheConfig())]))
    (choice,) = points.choices
    assert choice.key == METHOD and NOT_THERE not in choice.values and not choice.is_ordered


def test_two_numbers_have_no_way_that_things_go() -> None:
    points = Points(arrange([cached(2), cached(4)]))
    assert not points.choices[0].is_ordered


def test_points_that_cannot_work_are_choices_and_those_that_another_stands_for_lead_to_it() -> None:
    def plainest(of: Trial) -> tuple[Trial, str]:
        return (replace(of, cache=CacheConfig()), "a test") if of.label.endswith("R0.1") else (of, "")

    bad = trial(DBCacheConfig(Fn_compute_blocks=40, max_warmup_steps=2))
    space = arrange([trial(), cached(2, 0.1), cached(2, 0.2), bad], plainest=plainest)
    points = Points(space)
    assert set(points.trials) == space.asked and list(points.pruned) == [bad.trial_id]
    assert points.standing(cached(2, 0.1).trial_id) == trial().trial_id
    assert points.runnable == sorted([trial().trial_id, cached(2, 0.2).trial_id])
