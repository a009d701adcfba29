"""One sweep from plan to journal: reuse what still holds, run the rest, append each outcome as it comes.

It imports no torch, measures nothing itself and prints nothing; what happens is told to a `SweepListener`.
"""

import json
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from zbench.environment import Environment, differences
from zbench.errors import RecordError
from zbench.executors import Executor, Failed, Stopped, Task
from zbench.hardware.footprint import next_offload
from zbench.hardware.roofline import project
from zbench.measurement import UNJUDGED, Measurement
from zbench.quality.artifacts import copy_artifacts
from zbench.record import Reason, Record
from zbench.space import Placed
from zbench.store import Store
from zbench.sweeper.baseline import names_offload
from zbench.sweeper.content import PresentContent
from zbench.sweeper.plan import Plan
from zbench.trial import Trial, geometry_of


class SweepListener(Protocol):
    """What a sweep tells while it runs."""

    def note(self, text: str) -> None:
        """A sentence the user should see."""

    def reused(self, placed: Placed, record: Record) -> None:
        """A trial was taken from the journal."""

    def started(self, placed: Placed) -> None:
        """A trial begins."""

    def event(self, placed: Placed, event: dict[str, Any]) -> None:
        """Something happened inside the running trial."""

    def finished(self, placed: Placed, record: Record) -> None:
        """A trial's record is on disk."""

    def added(self, placed: Placed, trial: Trial) -> None:
        """A trial ran out of memory, and `trial` is tried in its place."""


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


@dataclass(frozen=True)
class Proxy:
    """A measurement on the tiny pipeline that projected trials may share, and its images."""

    measurement: Measurement
    artifacts: Path


Proxies = dict[tuple[str, bool, bool], Proxy]
"""By what was run, whether as a reference and whether against one; equal work on the tiny pipeline has equal ones."""


@dataclass
class Sweep:
    """The sweep of one plan."""

    plan: Plan
    store: Store
    executor: Executor
    environment: Environment
    listener: SweepListener
    should_stop: Callable[[], bool]
    _tried: dict[str, Placed] = field(default_factory=dict)  # by trial id
    _gave_way: dict[str, str] = field(default_factory=dict)  # one out of memory to the one tried in its place

    def __post_init__(self) -> None:
        self._present = PresentContent(self.plan.measure)

    def run(self) -> SweepResult:
        """Run every trial that has no reusable record. Records appear in the journal as trials end."""
        for text in self.plan.notes:
            self.listener.note(text)
        self._record_pruned()
        interrupted = not self._run_all()
        self._rename_roles()
        known = self.store.latest
        planned = [p.trial.trial_id for p in (*self.plan.trials, *(p for p, _ in self.plan.pruned))]
        ids = dict.fromkeys((*planned, *self._tried))
        return SweepResult([known[i] for i in ids if i in known], interrupted, self._gave_way)

    def _run_all(self) -> bool:
        """Whether it came to the end of the plan, and was not stopped before."""
        proxies: Proxies = {}
        queue = deque(self.plan.trials)
        while queue:
            placed = self._held_to_what_serves(queue.popleft())
            if self.should_stop():
                return False
            record = self._reusable(placed)
            if record is not None:
                record = replace(record, baseline_id=placed.baseline_id)  # `_rename_roles` has it in the journal
                self.listener.reused(placed, record)
            else:
                self.listener.started(placed)
                record = self._measure(placed, proxies)
                if record is None:
                    return False
                self.store.append(record)
                self.listener.finished(placed, record)
            self._tried[placed.trial.trial_id] = placed
            self._give_way(placed, record, queue)
        return True

    def _give_way(self, placed: Placed, record: Record, queue: deque[Placed]) -> None:
        """Where a trial ran out of memory, have the next offload tried; it takes over what the trial was to others."""
        smaller = self._with_next_offload(placed, record)
        if smaller is None:
            return
        self._gave_way[placed.trial.trial_id] = smaller.trial_id
        has_a_role = placed.is_reference or placed.is_baseline
        waiting = next((other for other in queue if other.trial.trial_id == smaller.trial_id), None)
        if smaller.trial_id in self._tried or (waiting is not None and not has_a_role):
            return
        if waiting is None:
            self.listener.added(placed, smaller)
        else:  # others will be held to it, so it comes first
            queue.remove(waiting)
        queue.appendleft(replace(placed, trial=smaller))

    def _with_next_offload(self, placed: Placed, record: Record) -> Trial | None:
        """What to try in place of a trial that ran out of memory: always of a reference, of others if asked for.

        Offload does not change images, so any mode makes a reference. A speed baseline is the reference's setting with
        what `sweep.baseline` says, so it follows its reference, unless that names an offload.
        """
        with_a_role = placed.is_reference or (placed.is_baseline and not names_offload(self.plan.sweep.baseline))
        wanted = with_a_role or self.plan.sweep.on_oom == "next_offload"
        if not wanted or record.reason is None or record.reason.next_offload is None:
            return None
        return replace(placed.trial, offload=replace(placed.trial.offload, mode=record.reason.next_offload))

    def _held_to_what_serves(self, placed: Placed) -> Placed:
        """With what took the place of a reference or a baseline that did not fit."""
        return replace(
            placed, reference_id=self._serving(placed.reference_id), baseline_id=self._serving(placed.baseline_id)
        )

    def _serving(self, trial_id: str) -> str:
        while trial_id in self._gave_way:
            trial_id = self._gave_way[trial_id]
        return trial_id

    def _rename_roles(self) -> None:
        """Append anew, unmeasured, each record of a tried trial whose speed-up is over another trial now than before.

        A FAILED record has no images either, so its reference is only a name as well. What was not tried before a stop
        keeps its names, and nothing is held to what was not tried.
        """
        said: dict[str, None] = {}
        for trial_id, placed in self._tried.items():
            now, record = self._held_to_what_serves(placed), self.store.latest[trial_id]
            renamed = record
            if record.state == "FAILED" and now.reference_id in self._tried:
                renamed = replace(renamed, reference_id=now.reference_id)
            if now.baseline_id in self._tried:
                renamed = replace(renamed, baseline_id=now.baseline_id)
            if renamed == record:
                continue
            self.store.append(renamed)
            if record.state == "COMPLETE":
                baseline = self._tried[now.baseline_id].trial.label
                said[f"speed-ups are now over {baseline}; nothing was measured again for that"] = None
        for text in said:
            self.listener.note(text)

    def _measure(self, placed: Placed, proxies: Proxies) -> Record | None:
        """The record of one trial, or None if the user stopped it. Projected trials share equal proxies."""
        trial = placed.trial
        runs = self._runs(trial)
        artifacts, reference = self.store.artifacts(trial.trial_id), self._reference(placed)
        proxy_key = runs.trial_id, placed.is_reference, reference is not None
        shared = proxies.get(proxy_key)
        if shared is not None:
            copy_artifacts(shared.artifacts, artifacts)
            measured = shared.measurement
        else:
            task = Task(runs, self.plan.measure, artifacts, reference, placed.is_reference)
            outcome = self.executor.run(task, lambda event: self.listener.event(placed, event), self.should_stop)
            if isinstance(outcome, Stopped):
                return None
            if isinstance(outcome, Failed):
                shutil.rmtree(artifacts, ignore_errors=True)  # of an earlier measurement, perhaps of other weights
                return self._record(placed, state="FAILED", reason=self._with_way_out(trial, outcome.reason))
            measured = outcome.measurement
        if trial.hardware is not None:
            proxies.setdefault(proxy_key, Proxy(measured, artifacts))
            measured = _projected(trial, measured)
        return self._record(placed, state="COMPLETE", measurement=measured, source=measured.source)

    def _runs(self, trial: Trial) -> Trial:
        """What is measured for a trial: itself, or the proxy of a projected one."""
        return trial if trial.hardware is None else self.plan.proxy_of(trial)

    def _with_way_out(self, trial: Trial, reason: Reason) -> Reason:
        """Where a GPU's memory ran out: the offload that is predicted to fit into it."""
        if reason.code != "out_of_memory" or reason.memory is None:
            return reason
        return replace(reason, next_offload=next_offload(trial, geometry_of(trial.pipeline), reason.memory))

    def _reference(self, placed: Placed) -> Path | None:
        """The quality reference's artifacts, once there are any."""
        if placed.is_reference:
            return None
        reference = self.store.latest.get(placed.reference_id)
        return self.store.artifacts(placed.reference_id) if reference and reference.state == "COMPLETE" else None

    def _reusable(self, placed: Placed) -> Record | None:
        """The record that makes measuring again needless; says why where one exists and does not.

        Which baseline it had does not matter: speed-ups are derived when records are read.
        """
        record = self.store.latest.get(placed.trial.trial_id)
        if record is None or self.plan.sweep.fresh:
            return None
        if record.state == "FAILED":
            return None if self.plan.sweep.retry_failed else record
        if record.state != "COMPLETE":
            return None
        changed = differences(record.environment, self.environment.to_dict())
        if not self._was_measured_alike(record):
            changed = ["the measure settings changed", *changed]
        if record.reference_id != placed.reference_id:
            changed = ["its images are judged against another reference", *changed]
        if record.measurement is not None and not record.measurement.paired_latencies_s:
            changed = ["no round of it was valid", *changed]
        if self._missed_its_reference(placed, record):
            changed = ["its reference was not there the last time", *changed]
        if not changed and record.measurement is not None:
            artifacts = self.store.artifacts(record.trial_id)
            changed = self._present.changes(self._runs(placed.trial), record.measurement, artifacts)
        if changed:
            self.listener.note(f"{placed.trial.label} is measured again: {'; '.join(changed)}")
            return None
        return record

    def _was_measured_alike(self, record: Record) -> bool:
        """Whether its `measure` is this sweep's; a key that it lacks has its default, and one not known is another."""
        try:
            return record.measure == self.plan.measure
        except RecordError:
            return False

    def _missed_its_reference(self, placed: Placed, record: Record) -> bool:
        had = record.measurement is not None and record.measurement.reasons.get("quality") not in UNJUDGED
        return not had and self._reference(placed) is not None

    def _record_pruned(self) -> None:
        for placed, reason in self.plan.pruned:
            self.listener.note(f"{placed.trial.label} is left out: {reason}")
            record = self._record(placed, state="PRUNED", reason=Reason("constraint", reason))
            before = self.store.latest.get(placed.trial.trial_id)
            told = before and (before.reason, before.reference_id, before.baseline_id)
            if told != (record.reason, record.reference_id, record.baseline_id):
                self.store.append(record)

    def _record(self, placed: Placed, **fields: Any) -> Record:
        config = {**placed.trial.to_dict(), "measure": asdict(self.plan.measure)}
        return Record(
            sweep=self.plan.name,
            trial_id=placed.trial.trial_id,
            reference_id=placed.reference_id,
            baseline_id=placed.baseline_id,
            label=placed.trial.label,
            config=_plain(config),
            environment=self.environment.to_dict(),
            command=self.plan.command,
            **fields,
        )


def _projected(trial: Trial, measured: Measurement) -> Measurement:
    """A proxy's measurement with the roofline's answer for the trial's own hardware."""
    assert trial.hardware is not None
    projection = project(trial, geometry_of(trial.pipeline), measured.rounds)
    return replace(
        measured,
        rounds=[replace(r, images=trial.pipeline.images) for r in measured.rounds],
        projection=projection,
        sources={"latency": "projected", "memory": "projected", "cached_steps": "proxy", "quality": "proxy"},
    )


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """As it will be read back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(data))
    return plain
