"""What samples say that nothing was chosen on: a trial that misses a limit there is never recommended.

A search judges some of its trials on other prompts or seeds, by their images alone. That is another piece of work in
the journal, and asks for no answer of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from zbench.analysis.constraints import Constraint, Judged
from zbench.analysis.figures import TrialFigures
from zbench.analysis.work import work_key
from zbench.record import Record
from zbench.trial import Trial

Pairs = list[tuple[TrialFigures, Record]]


@dataclass(frozen=True)
class OtherSamples:
    """What was judged on other samples, by the piece of work that it served (None: nobody said) and `_setting`."""

    figures: Mapping[tuple[str | None, str], Sequence[TrialFigures]]

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
        of_images = [limit for limit in limits if limit.metric.about == "quality"]
        keys = ((work, _setting(trial)) for work in (work_key(trial), None))
        return [limit.judge(row) for key in keys for row in self.figures.get(key, ()) for limit in of_images]


def parted(works: Mapping[str, Pairs], parts: Pairs) -> tuple[dict[str, Pairs], OtherSamples]:
    """The pieces of work that ask for an answer, and what was judged on other samples; all ask where none was timed.

    `parts` are of searches, which say what work they served; those that were timed are rungs, on some of its samples.
    """
    asking = {key: pairs for key, pairs in works.items() if not _only_judged(pairs)} or dict(works)
    others = [pair for key, pairs in works.items() if key not in asking for pair in pairs]
    found: dict[tuple[str | None, str], list[TrialFigures]] = {}
    for row, record in (*others, *(pair for pair in parts if pair[0].is_untimed)):
        if row.state == "COMPLETE":
            found.setdefault((record.part_of, _setting(record.trial)), []).append(row)
    return asking, OtherSamples(found)


def _only_judged(pairs: Pairs) -> bool:
    others = [row for row, _ in pairs if row.state == "COMPLETE" and not (row.is_reference or row.is_baseline)]
    return bool(others) and all(row.is_untimed for row in others)


def _setting(trial: Trial) -> str:
    """Equal for trials that differ in their samples alone."""
    workload = replace(trial.workload, prompts=[], seeds=[], name="", prompts_file=None, prompt=None)
    return replace(trial, workload=workload).trial_id
