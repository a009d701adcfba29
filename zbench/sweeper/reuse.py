"""Whether what the journal has of a trial still holds, so that nothing need be measured again."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from zbench.environment import capture, differences, software_differences
from zbench.errors import RecordError
from zbench.measurement import CALLED, UNJUDGED, Effective, Measurement
from zbench.quality.judge_weights import JUDGES
from zbench.record import Record
from zbench.space import Placed
from zbench.store import Store
from zbench.sweeper.content import PresentContent
from zbench.sweeper.devices import landed_elsewhere
from zbench.sweeper.plan import Plan
from zbench.trial import Trial


class Reuse:
    """The records of a journal that a plan may take as they are."""

    def __init__(
        self, plan: Plan, store: Store, environments: Sequence[dict[str, Any]], note: Callable[[str], None]
    ) -> None:
        """`environments` are those where trials may run now; none: nobody knows. `note` is told why a record does not
        hold."""
        self._sweep, self._measure, self._store = plan.sweep, plan.measure, store
        self._environments, self._note, self._profiles = environments, note, plan.profiles
        self._present = PresentContent(plan.measure)

    def knows(self, trial_id: str) -> bool:
        """Whether the journal has a record of a trial that may hold."""
        return trial_id in self._store.latest and (not self._sweep.fresh or trial_id in self._store.appended)

    def record_of(self, placed: Placed, runs: Trial, reference: Path | None) -> Record | None:
        """The record that makes measuring again needless; says why where one exists and does not.

        `runs` is what is measured for the trial, `reference` the folder of its reference's images, if it has any. Which
        baseline it had does not matter: speed-ups are derived when records are read. A failure is an answer too; one
        for images that are none holds as long as a measurement does, for other weights under the path may mend it.
        With `sweep.fresh` what was there before does not hold; what this sweep measured itself does.
        """
        record = self._store.latest.get(placed.trial.trial_id)
        if record is None or not self.knows(record.trial_id):
            return None
        if record.state == "FAILED" and record.reason is not None and record.reason.is_of_the_machine:
            why = f"the machine failed and not it: {record.reason.message}"
            self._note(f"{placed.trial.label} is tried again: {why}")
            return None
        if record.state == "FAILED" and record.reason is not None and record.reason.is_of_a_server:
            self._note(f"{placed.trial.label} is tried again: its server did not answer ({record.reason.code})")
            return None
        if record.state == "FAILED" and (self._sweep.retry_failed or record.measurement is None):
            return None if self._sweep.retry_failed else record
        if record.measurement is None:
            return None
        changed = self._moved_from(placed.trial, record.environment)
        untimed = self.wants_quality_only(placed)
        if not untimed and record.measurement.quality_only:
            changed = ["its images alone were judged before, and now it is timed", *changed]
        elif not self._was_measured_alike(record, untimed=untimed):
            changed = ["the measure settings changed", *changed]
        if record.valid_measurement is not None:
            changed = [*_lacks(record, placed, record.valid_measurement, reference), *changed]
        if not changed:
            artifacts = self._store.artifacts(record.trial_id)
            changed = self._present.changes(runs, record.measurement, artifacts)
            changed += self._reference_changed(placed, record.measurement)
        if changed:
            self._note(f"{placed.trial.label} is measured again: {'; '.join(changed)}")
            return None
        return record

    def _reference_changed(self, placed: Placed, measured: Measurement) -> list[str]:
        """That a reference of other weights has been measured since with other content than it was judged against."""
        reference = self._store.latest.get(placed.reference_id)
        if reference is None or reference.measurement is None:
            return []
        judged = Effective.of_content(measured.reference_sha256)
        differs = judged.differs_in_content(reference.measurement.effective)
        return [] if differs is None else [f"the {CALLED[differs]} of its reference changed since"]

    @cached_property
    def _software(self) -> dict[str, Any]:
        """This process's environment; where nobody knows those of trials, software is taken to be the same there."""
        return capture().to_dict()

    def _moved_from(self, trial: Trial, environment: dict[str, Any]) -> list[str]:
        """How where trials run now differs from where one was measured; empty where some worker is to be there.

        Where nobody knows that, software counts, and the kind of GPU that `hardware` names.
        """
        if not self._environments:
            hardware = self._profiles.get(trial.trial_id)
            device = landed_elsewhere(trial, hardware, environment)
            moved = [f"device {device} → hardware={hardware.name}"] if hardware and device else []
            return [*moved, *software_differences(environment, self._software)]
        found = [differences(environment, here) for here in self._environments]
        return min(found, key=len, default=[])

    def wants_quality_only(self, placed: Placed) -> bool:
        """Whether its images alone are asked for, by the sweep or the search. A projection times nothing anyway."""
        return self._measure.quality_only or (placed.quality_only and placed.trial.hardware is None)

    def _was_measured_alike(self, record: Record, *, untimed: bool) -> bool:
        """Whether its `measure` is this sweep's; a key that it lacks has its default, and one not known is another.

        Where images alone are asked for, those who judge them are all that counts.
        """
        try:
            own = record.measure
        except RecordError:
            return False
        if untimed:
            return all(getattr(own, key) == getattr(self._measure, key) for key in JUDGES)
        return own == self._measure


def _lacks(record: Record, placed: Placed, measured: Measurement, reference: Path | None) -> list[str]:
    """What its figures lack of what they could have now."""
    lacks = {
        "its reference was not there the last time": (
            reference is not None and measured.reasons.get("quality") in UNJUDGED
        ),
        "no round of it was valid": not measured.paired_latencies_s and not measured.quality_only,
        "its images are judged against another reference": record.reference_id != placed.reference_id,
    }
    return [why for why, is_so in lacks.items() if is_so]
