"""For which software projected figures stand, beside what was published of other software on that hardware."""

from collections.abc import Iterable

from zbench.errors import ConfigError
from zbench.hardware.roofline import STACKS, stack_of
from zbench.hardware.stacks import Implied, implied
from zbench.report.text.cells import PROJECTED_MARK, digits
from zbench.trial import Trial

PRESET = "zimage_turbo"  # whose figures were published


def stacks_told(trials: Iterable[Trial]) -> list[str]:
    """A sentence for each projected hardware, and one for each image that was published of it."""
    projected = [trial for trial in trials if trial.hardware is not None]
    lines = []
    for name in dict.fromkeys(trial.hardware.name for trial in projected if trial.hardware is not None):
        here = [trial for trial in projected if trial.hardware is not None and trial.hardware.name == name]
        stacks = "; ".join(STACKS[stack] for stack in dict.fromkeys(stack_of(trial) for trial in here))
        lines.append(f"{PROJECTED_MARK} on {name} assumes this software: {stacks}")
        first = next((trial for trial in here if trial.pipeline.preset == PRESET), None)
        if first is not None and first.hardware is not None:
            lines += [_published(each) for each in _implied(first)]
    return lines


def _implied(trial: Trial) -> list[Implied]:
    try:
        return implied(trial, trial.hardware) if trial.hardware is not None else []
    except ConfigError:  # of a profile that lacks figures nothing is projected
        return []


def _published(told: Implied) -> str:
    figure = told.figure
    is_limit = figure.kind == "ci_threshold"
    said, what = ("'s CI allows", "that limit") if is_limit else (" published", "what it reaches")
    taken = "" if figure.steps is not None else " (its default, for no number is named)"
    each = ", ".join(f"{PROJECTED_MARK}{digits(image.point)} s {name}" for name, image in told.projected.items())
    return (
        f"{figure.software}{said} {digits(told.image_s)} s an image of {told.steps} steps{taken}; projected are "
        f"{each}: {what} is nearest to {told.nearest}"
    )
