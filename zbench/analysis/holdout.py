"""What is held out of a choice: settings on other samples than they were chosen on; it judges no image itself.

A record of a search says for which piece of work it was made (`Record.part_of`), where that is not its own, and which
its samples are held out of besides (`Record.held_out_for`).
"""

from dataclasses import dataclass, replace

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import View
from zbench.analysis.work import work_key
from zbench.methods.cache import method_of
from zbench.record import Record
from zbench.trial import Trial
from zbench.workload import pairs


@dataclass(frozen=True)
class HeldOutMask:
    """One setting on the samples that it was chosen on, and on others."""

    mask: str  # of one that skips nothing: ones
    chosen: TrialFigures
    held_out: TrialFigures
    samples: tuple[int, int]  # prompts with seeds: chosen on, held out


def held_out_masks(view: View) -> list[HeldOutMask]:
    """Masks with figures on both, and what skips nothing, those that compute most first; empty where none has both."""
    chosen: dict[tuple[str, str, str], tuple[TrialFigures, Trial]] = {}
    others: dict[tuple[str, str, str], tuple[str, TrialFigures, Trial]] = {}
    for row, record in view.pairs:
        mask = None if row.state != "COMPLETE" or row.source == "published" else mask_of(record.trial)
        if mask is None:
            continue
        setting = without_samples(record.trial)
        if record.part_of is None:
            chosen[row.sweep, work_key(record.trial), setting] = row, record.trial
        others |= {(row.sweep, work, setting): (mask, row, record.trial) for work in works_judged(record)}
    found = []
    for key, (mask, row, trial) in others.items():
        if key in chosen and share_no_sample(trial, chosen[key][1]):
            samples = len(_samples(chosen[key][1])), len(_samples(trial))
            found.append(HeldOutMask(mask, chosen[key][0], row, samples))
    return sorted(found, key=lambda each: (-each.mask.count("1"), each.mask))


def works_judged(record: Record) -> tuple[str, ...]:
    """Pieces of work that it is for besides its own: whose samples it shares in part, or is held out of."""
    return record.held_out_for if record.part_of is None else (record.part_of, *record.held_out_for)


def mask_of(trial: Trial) -> str | None:
    """The digits of the trial's forced mask; ones where it skips nothing, None where something else decides."""
    method = method_of(trial.cache)
    if not method.skips:
        return "1" * trial.pipeline.steps
    mask = None if method.decider is not None else method.parameters.get("steps_mask")
    return None if mask is None else str(mask)


def without_samples(trial: Trial) -> str:
    """Equal for trials that differ in prompts and seeds alone."""
    return replace(trial, workload=replace(trial.workload, prompts=[], seeds=[])).trial_id


def share_no_sample(trial: Trial, other: Trial) -> bool:
    """Whether no prompt is made with the same seed by both: then the one's are held out of what the other's choose."""
    return not _samples(trial) & _samples(other)


def _samples(trial: Trial) -> set[tuple[str, int]]:
    return {(pair.prompt_text, pair.seed) for pair in pairs(trial.workload)}
