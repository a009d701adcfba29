"""Masks decide what is skipped in tune: judged by their images, the one that skips most within the limits is timed."""

from dataclasses import replace

import pytest
from surfaced import true_ssim
from surfaces import Surface, surface
from tuned_surfaces import COMPILED, EAGER, FORCED, at, space_of, tuned, tuned_with_records

from zbench.config import CacheConfig, ComputeConfig, SCMConfig
from zbench.errors import ConfigError
from zbench.methods.cache.bound import most_skips
from zbench.methods.cache.scm import every_mask, with_mask
from zbench.space import arrange

CACHES = (CacheConfig(), *FORCED)
SPACE = space_of((EAGER, COMPILED), CACHES)


def most_within(on: Surface, limit: float) -> int:
    """Steps that any mask skips within the limit, by brute force."""
    masks = (with_mask(CacheConfig(), mask) for mask in every_mask(8))
    return max(most_skips(c, 8) for c in masks if c is not None and true_ssim(on, at(c, compute=COMPILED)) >= limit)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mask_that_skips_most_within_the_limit_wins_and_alone_is_timed(seed: int) -> None:
    on = surface("smooth", seed)
    search, records = tuned_with_records(SPACE, on, min_ssim=0.85, skips="masks", holdout_seeds=[])
    best = search.stories[0].decider.best
    assert best is not None and best.trial.compute == COMPILED and best.is_measured
    assert most_skips(best.trial.cache, 8) == most_within(on, 0.85)
    masks = [record for record in records if isinstance(record.trial.cache, SCMConfig)]
    timed = [record for record in masks if not record.measurement.quality_only]
    assert [record.trial_id for record in timed] == [best.trial.trial_id] and len(masks) == 127 + 1


def test_what_it_finds_is_validated_as_any_answer_is() -> None:
    decider = tuned(SPACE, surface("smooth"), min_ssim=0.85, skips="masks").stories[0].decider
    assert decider.checked and decider.best is not None
    held_out = replace(decider.best.trial, workload=decider.held_out)
    assert true_ssim(surface("smooth"), held_out) >= 0.85


def test_without_a_limit_on_images_none_need_be_judged() -> None:
    _, records = tuned_with_records(SPACE, surface("smooth"), skips="masks")
    (mask,) = [r.trial.cache.steps_mask for r in records if isinstance(r.trial.cache, SCMConfig)]
    assert mask == "10000000"


def test_within_a_budget_in_trials_so_many_are_judged_as_leave_room_for_the_best() -> None:
    search, records = tuned_with_records(SPACE, surface("smooth"), min_ssim=0.85, skips="masks", budget=30)
    decider = search.stories[0].decider
    assert len(records) <= 30 and sum(r.measurement.quality_only for r in records) > 15
    assert decider.best is not None and most_skips(decider.best.trial.cache, 8) >= 1


def test_where_the_chosen_way_to_compute_takes_no_masks_the_next_that_does_has_them() -> None:
    """A captured forward is the same in every step."""
    whole = replace(COMPILED, graphs="all")
    search = tuned(space_of((EAGER, COMPILED, whole), CACHES), surface("smooth"), min_ssim=0.85, skips="masks")
    best = search.stories[0].decider.best
    assert best is not None and best.trial.compute == COMPILED and most_skips(best.trial.cache, 8)


def test_work_whose_images_say_nothing_is_refused_before_anything_runs() -> None:
    compute = ComputeConfig(device="cuda")
    trials = [at(cache, compute=compute, pipeline=replace(at().pipeline, weights="random")) for cache in CACHES]
    with pytest.raises(ConfigError, match="images of random weights say nothing of a mask"):
        tuned(arrange(trials), surface("smooth"), skips="masks")
