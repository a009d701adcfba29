"""Knobs without effect as sentences; what they did is `analysis.effects`'s."""

import math
from collections.abc import Sequence
from typing import Any

from zbench.analysis.effects import Differences, NeverFired, NoEffect, knob_effects
from zbench.analysis.view import View
from zbench.report.text import cells

THRESHOLD = "residual_diff_threshold"
MOST_GROUPS = 3  # named in one sentence


def knobs_without_effect(view: View) -> list[str]:
    """Of each reference: what had no effect, thresholds that never fired, and which would change something."""
    said = []
    for effects in knob_effects(view):
        said += [*_no_effect(effects.no_effect), *_never_fired(effects.never_fired)]
        said += [] if effects.differences is None else [_what_would_change(effects.differences)]
    return said


def _no_effect(found: Sequence[NoEffect]) -> list[str]:
    by_knobs: dict[str, list[str]] = {}
    for effect in found:
        knobs = " and ".join(f"{key}={_values(values)}" for key, values in effect.changed.items())
        by_knobs.setdefault(knobs, []).append(cells.listed(effect.labels))
    return [f"{knobs} had no effect: {_same(groups)}." for knobs, groups in by_knobs.items()]


def _same(groups: Sequence[str]) -> str:
    shown = list(groups[:MOST_GROUPS])
    more = len(groups) - len(shown)
    shown += [f"{more} more {'group' if more == 1 else 'groups'}"] if more else []
    return "; so do ".join([f"{shown[0]} give the same steps and images", *shown[1:]])


def _never_fired(found: Sequence[NeverFired]) -> list[str]:
    by_reason: dict[str, list[NeverFired]] = {}
    for never in found:
        by_reason.setdefault(_why_never(never), []).append(never)
    return [
        f"{THRESHOLD}={_values([never.threshold for never in group])} never fired "
        f"({cells.listed([never.label for never in group])}): {why}."
        for why, group in by_reason.items()
    ]


def _why_never(never: NeverFired) -> str:
    if never.least is None:
        return "no step was compared"
    least, step = never.least
    thousandths = math.floor(least * 1000)  # rounded down, for the next one to let it pass
    seen = f"the smallest difference was {thousandths / 1000:.3f} at step {step}"
    if least < never.threshold:
        return f"{seen}, which is less, so something else forbids it"
    return f"{seen}; from {(thousandths + 1) / 1000:.3f} on it would skip"


def _what_would_change(differences: Differences) -> str:
    steps = ", ".join(f"{middle:.3f} (step {step})" for middle, step in differences.medians)
    return (
        f"With {differences.label} the median differences are {steps}: a threshold above one of these skips that "
        "step. This is approximate: after a skipped step differences are against the cached one."
    )


def _values(values: Sequence[Any]) -> str:
    written = {str(v).lower() if isinstance(v, bool) else f"{v:g}" if isinstance(v, float) else str(v) for v in values}
    numeric = all(isinstance(v, int | float) for v in values) and not any(isinstance(v, bool) for v in values)
    return ", ".join(sorted(written, key=float) if numeric else sorted(written))
