"""One trial of the worker's `run` command, and how to talk about it while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zbench.config import MeasureConfig
from zbench.measurement import Role
from zbench.quality.judging import Judges
from zbench.trial import Trial


class StopAsked(Exception):
    """Someone asked to stop, and the request in progress is finished."""


@dataclass
class TrialJob:
    """What to measure, and whom to tell."""

    trial: Trial
    measure: MeasureConfig
    artifacts: Path
    reference: Path | None  # folder of the images to compare with
    tell: Callable[[dict[str, Any]], None]
    stopping: Callable[[], bool]
    of_other_weights: bool = False  # whether `reference` is so on purpose
    judges: Judges = field(default_factory=Judges)
    is_reference: bool = False  # whether others are compared with its images
    role: Role = "trial"
    stage: str = "loading"  # during which a failure is reported to have happened
    shares: bool = False  # whether other trials take turns with it
    is_beside: bool = False  # whether others of the task are compared with its requests, and keep them
    companion: bool = False  # whether it takes turns for the others' sake alone, and nothing else is kept of it
    busy: bool = False  # whether it is this trial's turn

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """A stretch of work for this trial; where it fails, the job stays busy, so that it is known whose it was."""
        self.stage, self.busy = stage, True
        if self.shares:
            self.tell({"event": "turn", "trial_id": self.trial.trial_id})
        yield
        self.busy = False

    def check_stop(self) -> None:
        """Raise StopAsked if a stop was asked for."""
        if self.stopping():
            raise StopAsked

    def tell_round(self, phase: str, index: int, latency_s: float, least: int, most: int) -> None:
        """Say that round `index` of `least` to `most` of a phase (warmup or timed) is over; nothing of a companion."""
        if self.companion:
            return
        self.tell(
            {
                "event": "round",
                "trial_id": self.trial.trial_id,
                "phase": phase,
                "index": index,
                "latency_s": latency_s,
                "min_rounds": least,
                "max_rounds": most,
            }
        )
