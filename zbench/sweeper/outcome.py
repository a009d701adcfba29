"""What a sweep tells while it runs, and what came of it; it decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from zbench.analysis.figures import TrialFigures
from zbench.record import Record
from zbench.space import Placed
from zbench.trial import Trial


class SweepListener(Protocol):
    """What a sweep tells while it runs."""

    def note(self, text: str) -> None:
        """A sentence the user should see."""

    def reused(self, placed: Placed, record: Record, figures: TrialFigures) -> None:
        """A trial was taken from the journal."""

    def started(self, placed: Placed, of: int = 1) -> None:
        """A trial begins, one `of` so many that take turns."""

    def event(self, placed: Placed, event: dict[str, Any]) -> None:
        """Something happened inside the running trial."""

    def finished(self, placed: Placed, record: Record, figures: TrialFigures) -> None:
        """A trial's record is on disk."""

    def added(self, trial: Trial, instead_of: Trial | None) -> None:
        """A trial that was not planned is going to run: in place of one that ran out of memory, or by the search."""


@dataclass(frozen=True)
class SweepResult:
    """The sweep's records, one a trial, and whether it was stopped before its end."""

    records: list[Record]
    interrupted: bool
    replaced: Mapping[str, str] = field(default_factory=dict)
    """A trial that ran out of memory to the one that was tried in its place."""

    @property
    def failed(self) -> int:
        """How many trials failed and have no stand-in that was measured."""
        states = {record.trial_id: record.state for record in self.records}

        def measured(trial_id: str) -> bool:
            return states.get(trial_id) == "COMPLETE" or (
                trial_id in self.replaced and measured(self.replaced[trial_id])
            )

        return sum(record.state == "FAILED" and not measured(record.trial_id) for record in self.records)
