"""Whether what `tune` found keeps the limits on images also on samples that it was not chosen on.

The best is judged on other seeds or prompts, each of them made once. One that misses a limit there is never given as
safe: the next best is judged in its place, until one holds or is the reference's own images.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace

from zbench.analysis.constraints import Judged
from zbench.search import Asked, OnlyQuality
from zbench.search.tune.decide import Batches, Decider
from zbench.search.tune.judge import Told
from zbench.workload import pairs


@dataclass(frozen=True)
class Validated:
    """One trial on the samples that it was chosen on, and on those held out."""

    chosen: Told
    held_out: Told
    limits: tuple[tuple[Judged, Judged], ...]
    """Each limit on images: on the samples that it was chosen on, and on those held out."""

    @property
    def holds(self) -> bool | None:
        """Whether it keeps them on those held out; None where nobody can say."""
        missed = [held_out.missed_by for _, held_out in self.limits]
        if not self.held_out.has_images or None in missed:
            return False if any(missed) else None
        return not any(missed)

    @property
    def samples(self) -> tuple[int, int]:
        """Prompts with seeds: those that it was chosen on, and those held out."""
        chosen, held_out = (len(pairs(told.trial.workload)) for told in (self.chosen, self.held_out))
        return chosen, held_out

    def __str__(self) -> str:
        """`SSIM of the worst image is 0.93, 0.02 short of --min-ssim 0.95 (0.961 on those that it was chosen on)`."""
        if not self.held_out.has_images:
            return f"its images there are not known: {self.held_out.why_not or 'not recorded'}"
        return "; ".join(
            f"{held_out} ({_figure(chosen.value)} on those that it was chosen on)" for chosen, held_out in self.limits
        )


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def validate(decider: Decider) -> Batches:
    """Judge the best on samples held out, and where it misses a limit there the next best."""
    while (best := decider.best) is not None and decider.judge.satisfies(best):
        if (yield from holds(decider, best)) is not False:
            return


def holds(decider: Decider, told: Told) -> Generator[list[Asked], None, bool | None]:
    """Whether a trial keeps the limits on samples held out; None where nobody can say, or the budget has no room."""
    if decider.held_out is None or not decider.judge.limits_images or not needs_validation(told):
        return None
    yield from decider.ask_for([OnlyQuality(replace(told.trial, workload=decider.held_out))])
    found = validation_of(decider, told)
    if found is not None and found.holds is False:
        decider.broken[told.trial.trial_id] = str(found)
    return None if found is None else found.holds


def needs_validation(told: Told) -> bool:
    """Whether its images may differ on other samples: those that are the reference's but for noise need none."""
    return not (told.row.is_reference or told.row.is_unchanged)


def validation_of(decider: Decider, chosen: Told) -> Validated | None:
    """What the samples held out say of a trial; None where it was not judged on them."""
    if decider.held_out is None:
        return None
    held_out = decider.checked.get(replace(chosen.trial, workload=decider.held_out).trial_id)
    if held_out is None:
        return None
    limits = zip(decider.judge.of_images(chosen), decider.judge.of_images(held_out), strict=True)
    return Validated(chosen, held_out, tuple(limits))


def validations(decider: Decider) -> list[Validated]:
    """Of all that were judged on samples held out, in the order in which they were."""
    every = [decider.told[trial_id] for trial_id in decider.broken]
    every += [] if decider.best is None else [decider.best]
    return [found for told in every if (found := validation_of(decider, told)) is not None]
