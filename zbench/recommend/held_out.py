"""What samples say that nothing was chosen on: a trial that misses a limit there is never recommended.

A search judges some of its trials on other prompts or seeds. Their records name the piece of work that they are for
(`Record.part_of`), and ask for no answer of their own. Where somebody typed these samples too, they are work of their
own, and name the other beside it (`Record.held_out_for`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from zbench.analysis.constraints import Constraint, Judged
from zbench.analysis.figures import TrialFigures
from zbench.analysis.holdout import share_no_sample, without_samples, works_judged
from zbench.analysis.work import work_key
from zbench.record import Record
from zbench.trial import Trial


@dataclass(frozen=True)
class OtherSamples:
    """What searches judged on other samples, by the piece of work that it is for and `without_samples`."""

    figures: Mapping[tuple[str, str], Sequence[tuple[TrialFigures, Trial]]]

    @classmethod
    def of(cls, made: Iterable[tuple[TrialFigures, Record]]) -> "OtherSamples":
        """`made` are records that judge other work than their own."""
        found: dict[tuple[str, str], list[tuple[TrialFigures, Trial]]] = {}
        for row, record in made:
            for work in works_judged(record) if row.state == "COMPLETE" and not row.is_reference else ():
                found.setdefault((work, without_samples(record.trial)), []).append((row, record.trial))
        return cls(found)

    def holding(
        self, rows: Sequence[TrialFigures], trial_of: Callable[[TrialFigures], Trial], limits: Sequence[Constraint]
    ) -> tuple[list[TrialFigures], list[str]]:
        """Those that are not known to miss a limit on other samples, and a sentence for each of the others."""
        missed = {row.key: [each for each in self._judged(trial_of(row), limits) if each.missed_by] for row in rows}
        said = [
            f"{row.label} was left out: on samples held out {'; '.join(dict.fromkeys(map(str, missed[row.key])))}"
            for row in rows
            if missed[row.key]
        ]
        return [row for row in rows if not missed[row.key]], said

    def notes(self, trial: Trial, limits: Sequence[Constraint]) -> list[str]:
        """How a trial stands to limits on images on other samples; none where nobody knows."""
        return [f"on samples held out {text}" for text in dict.fromkeys(map(str, self._judged(trial, limits)))]

    def _judged(self, trial: Trial, limits: Sequence[Constraint]) -> list[Judged]:
        """By none that shares a sample: a rung of halving is some of the samples that the choice is made on."""
        if not self.figures:
            return []
        judged = self.figures.get((work_key(trial), without_samples(trial)), ())
        of_images = [limit for limit in limits if limit.metric.about == "quality"]
        return [limit.judge(row) for row, on in judged if share_no_sample(on, trial) for limit in of_images]
