"""Parameters of step skipping that changed nothing, and thresholds that would have: sentences from raw rounds.

Refuses to call two trials the same unless every prompt and seed gave the same skipped steps and the same image.
"""

import math
from collections.abc import Sequence
from typing import Any

from zbench.analysis.figures import TrialSummary, rounds_by_image
from zbench.measurement import Round
from zbench.record import Record
from zbench.report.plots.data import residual_diffs
from zbench.report.text import cells
from zbench.stats import median

Pair = tuple[TrialSummary, Record]
THRESHOLD = "residual_diff_threshold"
MOST_GROUPS = 3  # named in one sentence


def knobs_without_effect(ordered: Sequence[Pair]) -> list[str]:
    """Of each baseline: what had no effect, thresholds that never fired, and which would change something."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for row, record in ordered:
        if row.state == "COMPLETE" and _cache(record).get("method", "none") != "none":
            groups.setdefault((row.sweep, row.baseline_id), []).append((row, record))
    said = []
    for trials in groups.values():
        found = [*_no_effect(trials), *_never_fired(trials)]
        said += [*found, *_what_would_change(trials)] if found else []
    return said


def _no_effect(trials: Sequence[Pair]) -> list[str]:
    alike: dict[object, list[Pair]] = {}
    for row, record in trials:
        outcome = _outcome(record)
        if outcome is not None:
            method, parallel = _cache(record)["method"], repr(record.config.get("parallel"))
            alike.setdefault((method, parallel, outcome), []).append((row, record))
    by_knobs: dict[str, list[str]] = {}
    for same in alike.values():
        changed = _changed([_cache(record) for _, record in same])
        if changed:
            by_knobs.setdefault(changed, []).append(cells.listed([row.label for row, _ in same]))
    return [f"{knobs} had no effect: {_same(groups)}." for knobs, groups in by_knobs.items()]


def _same(groups: Sequence[str]) -> str:
    shown = list(groups[:MOST_GROUPS])
    more = len(groups) - len(shown)
    shown += [f"{more} more {'group' if more == 1 else 'groups'}"] if more else []
    return "; so do ".join([f"{shown[0]} give the same steps and images", *shown[1:]])


def _never_fired(trials: Sequence[Pair]) -> list[str]:
    by_reason: dict[str, list[Pair]] = {}
    for row, record in trials:
        if row.cached_steps == 0 and _asks_threshold(_cache(record)):
            by_reason.setdefault(_why_never(record), []).append((row, record))
    return [
        f"{THRESHOLD}={_values([_cache(record)[THRESHOLD] for _, record in found])} never fired "
        f"({cells.listed([row.label for row, _ in found])}): {why}."
        for why, found in by_reason.items()
    ]


def _why_never(record: Record) -> str:
    diffs = residual_diffs(record.measurement) if record.measurement is not None else {}
    if not diffs:
        return "no step was compared"
    step, least = min(((step, min(values)) for step, values in diffs.items()), key=lambda pair: pair[1])
    thousandths = math.floor(least * 1000)  # rounded down, for the next one to let it pass
    seen = f"the smallest difference was {thousandths / 1000:.3f} at step {step}"
    if least < _cache(record)[THRESHOLD]:
        return f"{seen}, which is less, so something else forbids it"
    return f"{seen}; from {(thousandths + 1) / 1000:.3f} on it would skip"


def _what_would_change(trials: Sequence[Pair]) -> list[str]:
    """From cache-dit's defaults, else the trial that compared most steps and, of those, skipped least."""
    known = [
        (row, diffs)
        for row, record in trials
        if record.measurement is not None
        and _asks_threshold(_cache(record))
        and (diffs := residual_diffs(record.measurement))
    ]
    if not known:
        return []
    row, diffs = min(known, key=lambda pair: (not pair[0].has_default_cache, -len(pair[1]), pair[0].cached_steps or 0))
    medians = sorted((median(values), step) for step, values in diffs.items())
    steps = ", ".join(f"{middle:.3f} (step {step})" for middle, step in medians)
    return [
        f"With {row.label} the median differences are {steps}: a threshold changes something where it passes one of "
        "them, approximately, for what comes after a skipped step is measured against the cached one."
    ]


def _cache(record: Record) -> dict[str, Any]:
    """The parameters that mean something: without TaylorSeer its order is none."""
    cache: dict[str, Any] = record.config.get("cache", {})
    unused = () if cache.get("enable_taylorseer") else ("taylorseer_order",)
    return {key: value for key, value in cache.items() if key not in unused}


def _asks_threshold(cache: dict[str, Any]) -> bool:
    return THRESHOLD in cache and not (cache.get("method") == "scm" and cache.get("scm_policy") == "static")


def _outcome(record: Record) -> frozenset[object] | None:
    """What each prompt and seed came to; None where nothing was skipped or an image is not known."""
    images = rounds_by_image(record.measurement.rounds) if record.measurement is not None else {}
    rounds: list[Round] = [r for found in images.values() for r in found]
    if not any(r.cached_steps for r in rounds) or any(r.image_sha256 is None for r in rounds):
        return None
    return frozenset((r.prompt_id, r.seed, tuple(r.cached_steps), r.image_sha256) for r in rounds)


def _changed(caches: Sequence[dict[str, Any]]) -> str:
    """`taylorseer_order=1, 2`: the parameters that differ between the trials, and their values."""
    keys = dict.fromkeys(key for cache in caches for key in cache)
    values = {key: [cache[key] for cache in caches if key in cache] for key in keys}
    return " and ".join(f"{key}={_values(found)}" for key, found in values.items() if len(set(map(repr, found))) > 1)


def _values(values: Sequence[Any]) -> str:
    written = {str(v).lower() if isinstance(v, bool) else f"{v:g}" if isinstance(v, float) else str(v) for v in values}
    numeric = all(isinstance(v, int | float) for v in values) and not any(isinstance(v, bool) for v in values)
    return ", ".join(sorted(written, key=float) if numeric else sorted(written))
