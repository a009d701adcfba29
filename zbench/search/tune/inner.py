"""Other searches that may decide what is skipped in `tune`, over the space in which everything else is decided.

`masks` are judged by their images alone, each sample made once. What a mask saves follows from how many steps it
computes, so of those that keep the limits, also on samples held out, the one that skips most is timed, as any trial is.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from zbench.analysis.work import work_key
from zbench.config import CacheConfig
from zbench.errors import ConfigError
from zbench.methods.cache import method_of
from zbench.methods.cache.bound import most_skips
from zbench.methods.cache.scm import with_mask
from zbench.search import OnlyQuality, Search
from zbench.search.tune.decide import Batches, Decider, Inner, trial_of
from zbench.search.tune.judge import Told
from zbench.search.tune.validate import holds
from zbench.space import Space, constraint
from zbench.trial import Trial, geometry_of

MOST_TIMED = 3
"""Masks that are timed, where the first ones cannot be trusted."""

Make = Callable[[Space], Search]


def by_search(make: Make) -> Inner:
    """What a search of thresholds, or another of zbench's, decides on a base."""
    return partial(_searched, make)


def by_masks(make: Make) -> Inner:
    """The mask that skips most within the limits, of those that `make` has judged; without limits on images the one
    that computes the first step alone."""
    return partial(_masked, make)


def space_of(base: Trial, caches: list[CacheConfig], space: Space) -> Space:
    """These cache settings, as far as they can work with what `base` is otherwise."""
    trials = [replace(base, cache=cache) for cache in caches]
    works = [trial for trial in trials if constraint(trial, geometry_of(trial.pipeline)) is None]
    asked = frozenset(trial.trial_id for trial in works)
    return Space(tuple(space.place(trial) for trial in works), (), asked, {}, space.held_to)


def _searched(make: Make, decider: Decider, base: Told) -> Batches:
    search = make(space_of(base.trial, list(decider.choices.caches), decider.space))
    while (wanted := search.ask()) is not None:
        trial = trial_of(wanted)
        if work_key(trial) != work_key(base.trial):
            problem = f"asks for other work ({trial.label}), which tune has no room for; use thresholds or masks"
            raise ConfigError("search.options.skips", type(search).__name__, problem)
        yield from decider.ask_for([wanted])
        if (told := decider.known(wanted)) is None:
            return  # the budget ended it
        search.tell(told.record, told.row)


def _masked(make: Make, decider: Decider, base: Told) -> Batches:
    settings = space_of(base.trial, masked_settings(decider.choices.caches), decider.space)
    first_alone = "1" + "0" * (base.trial.pipeline.steps - 1)
    made = [with_mask(placed.trial.cache, first_alone) for placed in settings.placed]
    trials = [replace(base.trial, cache=cache) for cache in made if cache is not None]
    timed = 0
    if not trials:
        decider.not_tried["masks"] = "cannot work with what was decided before"
    elif decider.judge.limits_images:
        kept: list[Told] = []
        search = make(settings)
        while isinstance(wanted := search.ask(), OnlyQuality):
            yield from decider.ask_for([wanted])
            if (told := decider.known(wanted)) is None:
                break
            kept += [told] if decider.judge.keeps_likeness(told) else []
            search.tell(told.record, told.row)
        trials = _most_skipping(kept)
    for trial in trials:
        skips, steps = most_skips(trial.cache, trial.pipeline.steps), trial.pipeline.steps
        if (why := decider.skips(base).cannot_win(skips, steps)) is not None:
            decider.not_tried[f"{trial.label} and masks that compute as many steps or more"] = why
            return
        judged = decider.known(OnlyQuality(trial))
        if judged is not None and (yield from holds(decider, judged)) is False:
            continue
        told = yield from decider.measure(trial)
        timed += 1
        if told is None or decider.judge.allows(told) or timed == MOST_TIMED:
            return


def masked_settings(caches: tuple[CacheConfig, ...]) -> list[CacheConfig]:
    """The settings whose masks are tried, each once: forced masks where any were asked for, else all that skip."""
    skipping = [cache for cache in caches if method_of(cache).skips]
    chosen = [cache for cache in skipping if method_of(cache).choice == "forced"] or skipping or list(caches)
    return list({repr(with_mask(cache, "10")): cache for cache in chosen}.values())


def _most_skipping(kept: list[Told]) -> list[Trial]:
    """For each number of skipped steps the mask whose images are most alike, those that skip most first."""

    def skips(told: Told) -> int:
        return most_skips(told.trial.cache, told.trial.pipeline.steps)

    ranked = sorted(kept, key=lambda told: (skips(told), told.row.ssim_worst or 0.0, told.row.ssim_mean or 0.0))
    best = {skips(told): told.trial for told in ranked if skips(told)}
    return list(best.values())[::-1]
