"""One sweep from plan to journal: take what still holds, run the rest, append each outcome as it comes.

A search is asked for trials and told what came of each. As many tasks run as the executor has room for; a trial waits
until its reference has its images. The journal has one writer, this process. It imports no torch, measures nothing
itself and prints nothing; what happens is told to a `SweepListener`.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zbench.analysis.speedup import companion_id
from zbench.analysis.view import view_of
from zbench.analysis.work import work_key
from zbench.config import MeasureConfig, check
from zbench.engines import Descriptions
from zbench.errors import ConfigError, MachineError
from zbench.executors import (
    Completed,
    Done,
    Executor,
    Failed,
    Setting,
    Stopped,
    TakingTurns,
    Task,
    TaskResult,
)
from zbench.hardware.detect import environment_on
from zbench.measurement import REFERENCE_INVALID, Measurement, Role
from zbench.quality.artifacts import copy_artifacts
from zbench.record import MACHINE, Reason, Record, held_to_its_images
from zbench.search import Search, held_out_for, parts_of
from zbench.search.references import WithReferences
from zbench.search.retry import WithNextOffload
from zbench.space import Placed, constraint
from zbench.store import Store
from zbench.sweeper.baseline import names_offload
from zbench.sweeper.blocks import Blocks
from zbench.sweeper.content import with_what_was_kept
from zbench.sweeper.devices import check_landed
from zbench.sweeper.measured import Proxy, ProxyKey, measured_abroad, projected, reason_abroad, sized, stopped_by
from zbench.sweeper.news import News
from zbench.sweeper.outcome import SweepListener, SweepResult
from zbench.sweeper.plan import Plan
from zbench.sweeper.recovery import Recovery
from zbench.sweeper.reuse import Reuse
from zbench.sweeper.waiting import Waiting
from zbench.trial import Trial, geometry_of


@dataclass(frozen=True)
class _Begun:
    """A trial whose task the executor has."""

    placed: Placed
    proxy: ProxyKey
    measure: MeasureConfig


@dataclass
class Sweep:
    """The sweep of one plan."""

    plan: Plan
    store: Store
    executor: Executor
    search: Search
    listener: SweepListener
    should_stop: Callable[[], bool]
    _tried: dict[str, Placed] = field(default_factory=dict)  # by trial id
    _running: dict[str, _Begun] = field(default_factory=dict)  # by the trial id of a task's setting
    _tasks: int = 0  # that the executor has
    _proxies: dict[ProxyKey, Proxy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reuse = Reuse(self.plan, self.store, self.executor.environments, self.listener.note)
        self._recovery = Recovery(self.executor, fresh=self.plan.sweep.fresh)
        self._engines = Descriptions(allow_code=self.plan.allow_code)
        self._expected = {placed.trial.trial_id for placed in self.search.space.placed}
        self._parts, self._held_out_for = parts_of(self.search), held_out_for(self.search)
        self._news = News(self.search, self._pruned, self.listener.note, self.plan.notes)
        paired = self.plan.measure.paired and isinstance(self.executor, TakingTurns) and self.executor.takes_turns()
        begin = self.plan.begins_blocks(self.executor.capacity)
        self._blocks = Blocks(self.search, self._engines, paired=paired, begin=begin)
        search = WithReferences(self.search, self.plan.search.target)
        self._search = WithNextOffload(search, self._wants_next_offload, self._expect)
        self._waiting = Waiting(self._search)

    def run(self) -> SweepResult:
        """Run every trial that has no reusable record. Records appear in the journal as trials end."""
        for text in self.plan.notes:
            self.listener.note(text)
        self._news.heed()
        interrupted = not self._run_all()
        if not interrupted:
            self._recovery.forget()
        self._news.heed()
        if not interrupted and not self._tried and not self.search.space.pruned:
            raise ConfigError("search.target", self.plan.search.target, "asked for no trial")
        self._rename_roles()
        known = self.store.latest
        space = self.search.space
        planned = [p.trial.trial_id for p in (*space.placed, *(p for p, _ in space.pruned))]
        ids = dict.fromkeys((*planned, *self._tried))
        return SweepResult([known[i] for i in ids if i in known], interrupted, self._search.gave_way)

    def _run_all(self) -> bool:
        """Whether the search came to its end, and was not stopped before.

        Raises ConfigError for a search that repeats itself, and for an executor that ends what it does not hold;
        MachineError where the machine fails and not a trial.
        """
        stopped = False
        while True:
            while not stopped and (placed := self._next_ready()) is not None:
                stopped = self.should_stop()
                if stopped:
                    self._waiting.put_back(placed)
                else:
                    self._begin(placed)
            if not self._running:
                if self._waiting and not stopped:
                    raise RuntimeError(f"nothing runs, and {self._waiting.placed[0].trial.label} waits")
                return not self._waiting
            done = self.executor.next_done(self._tell_event, self.should_stop)
            if any(setting.trial.trial_id not in self._running for setting in done.task.settings):
                raise ConfigError("executor.target", self.plan.executor.target, "ends a task that it does not hold")
            stopped = stopped or Stopped() in done.results
            self._tasks -= 1
            for setting, result in zip(done.task.settings, self._blocks.results(done), strict=True):
                self._end(self._running.pop(setting.trial.trial_id), result, done)

    def _next_ready(self) -> Placed | None:
        """The next trial that may begin now, if the executor has room for one more.

        The search is asked no sooner than there is room, for it decides by what it was told.
        """
        room = self.executor.capacity - self._tasks
        if room <= 0:
            return None
        return self._waiting.take(self._is_ready, lambda _: len(self._waiting) < room or not self._tasks)

    def _is_ready(self, placed: Placed, begins: Trial | None = None) -> bool:
        """Whether what it is held to has come to its end, and no other trial is running what could serve it too.

        A baseline waits for the reference alone, and a reference for nothing. Others of a block do not wait for the
        trial that `begins` it.
        """
        awaited = set() if placed.is_reference else {placed.reference_id}
        awaited |= set() if placed.is_reference or placed.is_baseline else {placed.baseline_id}
        if not awaited <= self._tried.keys() | ({begins.trial_id} if begins else set()):
            return False
        return all(begun.proxy[0] != self._runs(placed.trial).trial_id for begun in self._running.values())

    def _begin(self, placed: Placed) -> None:
        """Submit a task of a trial that is to be measured, and of those that take turns with it. Where they do so with
        another trial of the sweep that has not begun, that one begins, and this one waits."""
        if (first := self._to_come_first(placed)) is not None:
            self._waiting.put_back(placed)
            placed = first
        setting = self._setting_of(placed)
        if setting is None:
            return
        companion = self._companion(placed)
        begins = placed.trial if companion is None and self._blocks.begins_with(placed) else None
        block = {placed.trial.trial_id: (placed, replace(setting, is_beside=begins is not None))}
        beside, most = begins or companion, 1
        if beside is not None:
            begun, room = {*self._tried, *self._running, beside.trial_id}, self.executor.capacity - self._tasks
            most = self._blocks.size(placed.trial, begun, room) + (begins is not None)
        while beside is not None and len(block) < most:
            other = self._next_beside(placed, beside)
            if other is None:
                break
            if (setting := self._setting_of(other, begins)) is not None:
                block[other.trial.trial_id] = (other, setting)
        settings, measure = tuple(setting for _, setting in block.values()), self._measure_of(placed)
        for one, setting in block.values():
            self.listener.started(one, len(block))
            key: ProxyKey = setting.trial.trial_id, setting.is_reference, setting.reference is not None
            self._running[setting.trial.trial_id] = _Begun(one, key, measure)
        self._tasks += 1
        process = self._blocks.process(settings[0].trial)
        self.executor.submit(Task(settings, measure, process, companion))

    def _measure_of(self, placed: Placed) -> MeasureConfig:
        """How it is measured: as the sweep is, or its images alone; never those of what was timed once."""
        record = self.store.latest.get(placed.trial.trial_id)
        measured = None if record is None else record.valid_measurement
        timed = measured is not None and not measured.quality_only
        return replace(self.plan.measure, quality_only=self._reuse.wants_quality_only(placed) and not timed)

    def _companion(self, placed: Placed, begins: Trial | None = None) -> Trial | None:
        """The uncached trial that it takes turns with: the one that `begins` its block, if that is its baseline."""
        if self._measure_of(placed).quality_only:
            return None
        baseline, latest = self._tried.get(placed.baseline_id, placed).trial, self.store.latest
        if begins is not None and begins.trial_id == placed.baseline_id:
            baseline = begins

        def has_failed(trial_id: str) -> bool:
            return trial_id in self._tried and latest[trial_id].state != "COMPLETE"

        return self._blocks.companion(placed, baseline, has_failed)

    def _to_come_first(self, placed: Placed) -> Placed | None:
        """The trial of the sweep that it takes turns with, if that may begin a block and has not begun yet."""
        companion = self._companion(placed) if placed.trial.trial_id in self._blocks.may_begin else None
        wanted = "" if companion is None else companion.trial_id
        if wanted in self._tried or wanted not in self._blocks.may_begin:
            return None
        return self._waiting.take(
            lambda other: other.trial.trial_id == wanted and self._is_ready(other),
            lambda last: self._blocks.goes_on(placed, last, self._waiting.came),
        )

    def _next_beside(self, first: Placed, beside: Trial) -> Placed | None:
        """Another trial that may take turns with `first` now; others that come before it wait."""
        return self._waiting.take(
            lambda other: self._is_beside(first, beside, other),
            lambda last: self._blocks.goes_on(first, last, self._waiting.came),
        )

    def _is_beside(self, first: Placed, beside: Trial, placed: Placed) -> bool:
        """Whether `first` and another take turns with the same trial, `first` itself perhaps, of one process. What may
        be in the journal waits for its baseline."""
        if self._blocks.process(first.trial) != self._blocks.process(placed.trial):
            return False
        begins = beside if beside.trial_id == first.trial.trial_id else None
        waits = begins is not None and begins.trial_id == placed.baseline_id
        if not self._is_ready(placed, begins) or (waits and self._reuse.knows(placed.trial.trial_id)):
            return False
        found = self._companion(placed, begins)
        return found is not None and found.trial_id == beside.trial_id

    def _setting_of(self, placed: Placed, begins: Trial | None = None) -> Setting | None:
        """What is to be measured for it, in a block that another trial `begins` perhaps. None where its record is in
        the journal, or its figures in a proxy's."""
        if placed.trial.trial_id in self._tried:
            self.listener.added(placed.trial, None)  # once more, to be timed now
        reason = self._why_not(placed.trial)
        if reason is not None:
            self._settle(placed, self._pruned(placed, reason), kept=True)
            return None
        runs, reference = self._runs(placed.trial), self._reference(placed, begins)
        artifacts = self.store.artifacts(placed.trial.trial_id)
        role: Role = "baseline" if placed.is_baseline else "trial"
        setting = Setting(runs, artifacts, reference, placed.is_reference, role, self._is_of_other_weights(placed))
        record = self._reuse.record_of(placed, runs, reference)
        if record is None and self._recovers(placed, setting):
            record = self._reuse.record_of(placed, runs, reference)
        if record is not None:
            record = replace(record, baseline_id=placed.baseline_id)  # `_rename_roles` has it in the journal
            self._settle(placed, record, kept=True, reused=True)
            return None
        proxy = self._proxies.get((runs.trial_id, placed.is_reference, reference is not None))
        if proxy is not None:
            self.listener.started(placed)
            record = self._measured(placed, proxy.measurement, proxy.environment)
            if not record.has_invalid_images:
                copy_artifacts(proxy.artifacts, artifacts)
            self._settle(placed, record)
            return None
        return setting

    def _recovers(self, placed: Placed, setting: Setting) -> bool:
        """Whether the journal has now what a job had measured for a command that was killed, to be held to what holds
        for every record."""
        measure = self._measure_of(placed)
        found = self._recovery.of(placed.trial, self.plan.profiles.get(placed.trial.trial_id), setting, measure)
        if found is None:
            return False
        record = self._measured(placed, found.measurement, found.environment, measure)
        before = self.store.latest.get(record.trial_id)
        if before is not None and before.measurement == record.measurement:
            return False  # it had been written down
        self.store.append(record)
        self.listener.note(f"{record.label} had been measured when its command was killed; that is in the journal now")
        return True

    def _end(self, begun: _Begun, result: TaskResult, done: Done) -> None:
        """Record what came of a task's trial; one that was not measured waits again."""
        placed = begun.placed
        if not self.executor.environments:  # nobody knew before where it would be
            check_landed(placed.trial, self.plan.profiles.get(placed.trial.trial_id), done.environment)
        artifacts, environment = self.store.artifacts(placed.trial.trial_id), done.environment or self._parents
        if isinstance(result, Completed):
            if placed.trial.hardware is not None:
                self._proxies.setdefault(begun.proxy, Proxy(result.measurement, artifacts, environment))
            record = self._measured(placed, result.measurement, environment, begun.measure)
            self._settle(placed, replace(record, beside=done.beside))
        elif isinstance(result, Failed) and result.reason.code == MACHINE:
            raise MachineError(stopped_by(result.reason, placed.trial))
        elif isinstance(result, Failed):
            shutil.rmtree(artifacts, ignore_errors=True)  # of an earlier measurement, perhaps of other weights
            reason = reason_abroad(placed.trial, result.reason)
            fields: dict[str, Any] = {"reason": reason, "beside": done.beside, "measure": begun.measure}
            self._settle(placed, self._record(placed, environment, state="FAILED", **fields))
        else:
            self._waiting.put_back(placed)

    def _settle(self, placed: Placed, record: Record, *, kept: bool = False, reused: bool = False) -> None:
        """A trial has its record: append it unless it is `kept` already, show it, tell the search."""
        self._tried[placed.trial.trial_id] = placed
        if not kept:
            self.store.append(record)
        beside = companion_id(record.measurement) if record.measurement is not None else None
        held_to = dict.fromkeys((placed.reference_id, placed.baseline_id, beside or placed.baseline_id))
        known = [self.store.latest.get(i) for i in held_to]
        others = [other for other in known if other is not None and other.trial_id in self._tried]
        rows = view_of([*(other for other in others if other.trial_id != record.trial_id), record]).trials
        figures = next(row for row in rows if row.trial_id == record.trial_id)
        if reused:
            self.listener.reused(placed, record, figures)
        else:
            self.listener.finished(placed, record, figures)
        self._search.tell(record, figures)
        self._news.heed()

    def _why_not(self, trial: Trial) -> str | None:
        """Why a trial that comes by what the search was told cannot work; the others were asked before."""
        if trial.trial_id in self._expected:
            return None
        self._expect(trial)
        try:
            check(trial)
        except ConfigError as error:
            return str(error)
        return constraint(trial, geometry_of(trial.pipeline)) or self._engines.supports(trial)

    def _expect(self, trial: Trial, instead_of: Trial | None = None) -> None:
        self._expected.add(trial.trial_id)
        self.listener.added(trial, instead_of)

    def _wants_next_offload(self, placed: Placed) -> bool:
        """Whether to try more offload in place of a trial that ran out of memory: always of a reference.

        A speed baseline is the reference's setting with what `sweep.baseline` says, so it follows its reference, unless
        that names an offload. Of the others where `sweep.on_oom` asks for it.
        """
        with_a_role = placed.is_reference or (placed.is_baseline and not names_offload(self.plan.sweep.baseline))
        return with_a_role or self.plan.sweep.on_oom == "next_offload"

    def _tell_event(self, task: Task, event: dict[str, Any]) -> None:
        trial_id = event.get("trial_id", task.settings[0].trial.trial_id)
        self.listener.event(self._running[trial_id].placed, event)

    def _rename_roles(self) -> None:
        """Append anew, unmeasured, each record of a tried trial whose speed-up is over another trial now than before.

        A FAILED record has no images either, so its reference is only a name as well. What was not tried before a stop
        keeps its names, and nothing is held to what was not tried.
        """
        said: dict[str, None] = {}
        for trial_id, placed in self._tried.items():
            now, record = self._search.held_to_what_serves(placed), self.store.latest[trial_id]
            work = work_key(placed.trial)
            renamed = replace(record, held_out_for=tuple(self._held_out_for.get(work, ())))
            renamed = renamed if work in self._parts else replace(renamed, part_of=None)
            if record.state == "FAILED" and now.reference_id in self._tried:
                renamed = replace(renamed, reference_id=now.reference_id)
            if now.baseline_id in self._tried:
                renamed = replace(renamed, baseline_id=now.baseline_id)
            if renamed == record:
                continue
            self.store.append(renamed)
            if record.state == "COMPLETE" and renamed.baseline_id != record.baseline_id:
                baseline = self._tried[now.baseline_id].trial.label
                said[f"speed-ups are now over {baseline}; nothing was measured again for that"] = None
        for text in said:
            self.listener.note(text)

    def _measured(
        self, placed: Placed, measured: Measurement, environment: dict[str, Any], measure: MeasureConfig | None = None
    ) -> Record:
        """COMPLETE unless images of it are none, and gone; with the roofline's answer, where a proxy was measured."""
        artifacts = self.store.artifacts(placed.trial.trial_id)
        measured = with_what_was_kept(measured_abroad(measured), artifacts)
        if placed.trial.hardware is not None:
            measured = projected(placed.trial, measured)
        else:
            measured = sized(placed.trial, measured)
        reference = None if placed.is_reference else self.store.latest.get(placed.reference_id)
        if reference is not None and reference.has_invalid_images and measured.reasons.get("quality") == "no_reference":
            measured = replace(measured, reasons={**measured.reasons, "quality": REFERENCE_INVALID})
        outcome: dict[str, Any] = {"measurement": measured, "source": measured.source, "measure": measure}
        record = held_to_its_images(self._record(placed, environment, state="COMPLETE", **outcome))
        if record.has_invalid_images:
            shutil.rmtree(artifacts, ignore_errors=True)
        return record

    def _runs(self, trial: Trial) -> Trial:
        """What is measured for a trial: itself, or the proxy of a projected one."""
        return trial if trial.hardware is None else self.plan.proxy_of(trial)

    def _reference(self, placed: Placed, begins: Trial | None) -> Path | None:
        """The quality reference's artifacts, once there are any; of one in whose block it is, as it will save them."""
        if placed.is_reference:
            return None
        if begins is None or begins.trial_id != placed.reference_id:
            reference = self.store.latest.get(placed.reference_id)
            if reference is None or reference.state != "COMPLETE":
                return None
        return self.store.artifacts(placed.reference_id)

    def _is_of_other_weights(self, placed: Placed) -> bool:
        """Whether its quality reference names other files than it does itself, as `sweep.reference_weights` asks."""
        reference = self._tried.get(placed.reference_id, placed).trial
        return reference.pipeline.named_files != placed.trial.pipeline.named_files

    @property
    def _parents(self) -> dict[str, Any]:
        """Of records that no worker had a say in."""
        return self.executor.environments[0] if self.executor.environments else environment_on([]).to_dict()

    def _pruned(self, placed: Placed, reason: str) -> Record:
        """The record of a trial that is left out, which the journal has from now on; what was measured stays there."""
        self.listener.note(f"{placed.trial.label} is left out: {reason}")
        record = self._record(placed, self._parents, state="PRUNED", reason=Reason("constraint", reason))
        before = self.store.latest.get(placed.trial.trial_id)
        told = before and (before.reason, before.reference_id, before.baseline_id)
        was_measured = before is not None and before.state == "COMPLETE"
        if not was_measured and told != (record.reason, record.reference_id, record.baseline_id):
            self.store.append(record)
        return record

    def _record(
        self, placed: Placed, environment: dict[str, Any], *, measure: MeasureConfig | None = None, **fields: Any
    ) -> Record:
        """`measure`: how it was measured, where that is not as the sweep measures."""
        config = {**placed.trial.to_dict(), "measure": asdict(measure or self.plan.measure)}
        return Record(
            sweep=self.plan.name,
            trial_id=placed.trial.trial_id,
            reference_id=placed.reference_id,
            baseline_id=placed.baseline_id,
            label=placed.trial.label,
            config=json.loads(json.dumps(config)),  # as it will be read back
            environment=environment,
            command=self.plan.command,
            part_of=self._parts.get(work_key(placed.trial)),
            held_out_for=tuple(self._held_out_for.get(work_key(placed.trial), ())),
            **fields,
        )
