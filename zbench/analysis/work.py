"""Pieces of work: trials are compared, ranked and recommended within one piece, never across two."""

from collections.abc import Sequence

from zbench.analysis.labels import fewest_telling, flatten
from zbench.trial import Trial


def work_key(trial: Trial) -> str:
    """Equal for trials that do the same work on the same device: they have one quality reference."""
    return trial.reference.trial_id


def work_names(trials: Sequence[Trial]) -> list[str]:
    """A name for each piece of work, `trials` holding one trial of each: what is made, and what else parts them."""
    names = [_name(trial) for trial in trials]
    if len(set(names)) == len(names):
        return names
    works = [flatten(trial.reference.to_dict()) for trial in trials]
    keys = [key for key in dict.fromkeys(key for work in works for key in work)]
    telling = fewest_telling([key for key in keys if not isinstance(works[0].get(key), list)], works)
    told = [
        " ".join([name, *(f"{key}={work.get(key)}" for key in telling)])
        for name, work in zip(names, works, strict=True)
    ]
    if len(set(told)) == len(told):
        return told
    return [f"{name} ({trial.reference.trial_id[:6]})" for name, trial in zip(told, trials, strict=True)]


def _name(trial: Trial) -> str:
    pipeline = trial.pipeline
    on = "" if trial.hardware is None else f" on {trial.hardware.title}"
    return f"{pipeline.name} {pipeline.width}×{pipeline.height}, {pipeline.steps} steps{on}"
