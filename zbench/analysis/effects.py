"""What a knob of step skipping did: parameters that changed nothing, thresholds that never fired, and which would.

Refuses to call two trials the same unless every prompt and seed gave the same skipped steps and the same image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zbench.analysis.figures import TrialFigures
from zbench.analysis.metrics import rounds_by_image
from zbench.analysis.steps import residual_diffs
from zbench.analysis.view import View
from zbench.measurement import Request
from zbench.methods.cache import method_of
from zbench.record import Record
from zbench.stats import median

Pair = tuple[TrialFigures, Record]


@dataclass(frozen=True)
class NoEffect:
    """Trials with the same steps and images, and each parameter that differs between them with its values."""

    changed: dict[str, list[Any]]
    labels: list[str]


@dataclass(frozen=True)
class NeverFired:
    """A trial whose threshold skipped no step: the least difference, and where; None where nothing was compared."""

    label: str
    threshold: float
    least: tuple[float, int] | None  # difference and step


@dataclass(frozen=True)
class Differences:
    """A trial's median residual differences, least first, each with its step: thresholds between them act alike."""

    label: str
    medians: list[tuple[float, int]]


@dataclass(frozen=True)
class KnobEffects:
    """What is known of the trials judged against one reference."""

    no_effect: list[NoEffect]
    never_fired: list[NeverFired]
    differences: Differences | None


def knob_effects(view: View) -> list[KnobEffects]:
    """One for each reference whose trials skip steps; those of which nothing is to be said are left out."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for row, record in view.pairs:
        if row.state == "COMPLETE" and method_of(record.trial.cache).skips:
            groups.setdefault((row.sweep, row.reference_id), []).append((row, record))
    found = [KnobEffects(_no_effect(trials), _never_fired(trials), _differences(trials)) for trials in groups.values()]
    return [effects for effects in found if effects.no_effect or effects.never_fired]


def _no_effect(trials: Sequence[Pair]) -> list[NoEffect]:
    alike: dict[object, list[Pair]] = {}
    for row, record in trials:
        outcome = _outcome(record)
        if outcome is not None:
            groups = record.trial.pipeline, record.trial.parallel, record.trial.compute
            how = record.trial.cache.method, *map(repr, groups)
            alike.setdefault((how, outcome), []).append((row, record))
    found = [
        NoEffect(_changed([method_of(r.trial.cache).parameters for _, r in same]), [row.label for row, _ in same])
        for same in alike.values()
    ]
    return [effect for effect in found if effect.changed]


def _never_fired(trials: Sequence[Pair]) -> list[NeverFired]:
    found = []
    for row, record in trials:
        threshold, measurement = method_of(record.trial.cache).threshold, record.measurement
        if row.cached_steps == 0 and threshold is not None and measurement is not None:
            diffs = residual_diffs(measurement)
            least = min(((min(values), step) for step, values in diffs.items()), default=None)
            found.append(NeverFired(row.label, threshold, least))
    return found


def _differences(trials: Sequence[Pair]) -> Differences | None:
    """Of cache-dit's defaults, else of the trial that compared most steps and, of those, skipped least."""
    known = [
        (row, diffs)
        for row, record in trials
        if record.measurement is not None
        and method_of(record.trial.cache).threshold is not None
        and (diffs := residual_diffs(record.measurement))
    ]
    if not known:
        return None
    row, diffs = min(known, key=lambda pair: (not pair[0].has_default_cache, -len(pair[1]), pair[0].cached_steps or 0))
    return Differences(row.label, sorted((median(values), step) for step, values in diffs.items()))


def _outcome(record: Record) -> frozenset[object] | None:
    """What each prompt and seed came to; None where nothing was skipped or an image is not known."""
    images = rounds_by_image(record.measurement.requests) if record.measurement is not None else {}
    rounds: list[Request] = [r for found in images.values() for r in found]
    if not any(r.cached_steps for r in rounds) or any(r.image_sha256 is None for r in rounds):
        return None
    return frozenset((r.prompt_id, r.seed, tuple(r.cached_steps), r.image_sha256) for r in rounds)


def _changed(caches: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The parameters that differ between the trials, and their values."""
    keys = dict.fromkeys(key for cache in caches for key in cache)
    values = {key: [cache[key] for cache in caches if key in cache] for key in keys}
    return {key: found for key, found in values.items() if len(set(map(repr, found))) > 1}
