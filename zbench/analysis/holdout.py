"""Step masks on the samples that they were chosen on, beside the same masks on others; it judges no image itself.

Nobody says which samples those were, and nobody need: a search tries many masks on them, and few on any others.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import View
from zbench.config import CacheConfig
from zbench.methods.cache import method_of
from zbench.trial import Trial


@dataclass(frozen=True)
class HeldOut:
    """One setting on the samples that it was chosen on, and on others."""

    mask: str  # of one that skips nothing: ones
    chosen: TrialFigures
    held_out: TrialFigures
    samples: tuple[int, int]  # prompts with seeds: chosen on, held out


def held_out_masks(view: View) -> list[HeldOut]:
    """Masks with figures on both, and what skips nothing, those that compute most first; empty where none has both."""
    settings: dict[str, dict[str, dict[str, tuple[TrialFigures, Trial]]]] = defaultdict(lambda: defaultdict(dict))
    for row, record in view.pairs:
        mask = None if row.state != "COMPLETE" or row.source == "published" else mask_of(record.trial)
        if mask is not None:
            settings[row.sweep + _setting(record.trial)][row.reference_id][mask] = row, record.trial
    found = []
    for works in settings.values():
        most = sorted(works.values(), key=len, reverse=True)
        if len(most) < 2 or len(most[0]) == len(most[1]):
            continue
        for other in most[1:]:
            found += [_beside(mask, most[0][mask], other[mask]) for mask in most[0] if mask in other]
    return sorted(found, key=lambda each: (-each.mask.count("1"), each.mask))


def mask_of(trial: Trial) -> str | None:
    """The digits of the trial's forced mask; ones where it skips nothing, None where something else decides."""
    method = method_of(trial.cache)
    if not method.skips:
        return "1" * trial.pipeline.steps
    mask = None if method.decider is not None else method.parameters.get("steps_mask")
    return None if mask is None else str(mask)


def _setting(trial: Trial) -> str:
    """Equal for trials that differ in samples and mask alone; what skips nothing goes with every such setting's."""
    workload = replace(trial.workload, prompts=[], seeds=[], name="", prompts_file=None, prompt=None)
    return replace(trial, workload=workload, cache=CacheConfig()).trial_id


def _beside(mask: str, chosen: tuple[TrialFigures, Trial], held_out: tuple[TrialFigures, Trial]) -> HeldOut:
    of_chosen, of_held_out = (len(t.workload.prompts) * len(t.workload.seeds) for _, t in (chosen, held_out))
    return HeldOut(mask, chosen[0], held_out[0], (of_chosen, of_held_out))
