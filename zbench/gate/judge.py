"""New records against base records, trial by trial and metric by metric; it reads no file and prints nothing.

What is missing or failed is never a pass: a trial of the base that the new records lack, or that failed there, is
a regression; a figure that cannot be compared is inconclusive.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from zbench.analysis.metrics import Metric
from zbench.config import OffloadConfig
from zbench.errors import ConfigError, Exit, RecordError
from zbench.gate.baselines import machine_of
from zbench.gate.limits import Limit
from zbench.measurement import Effective
from zbench.record import Record
from zbench.stats import (
    Compared,
    Comparison,
    Judgement,
    Kind,
    Refusal,
    RefusalReason,
    Scale,
    Verdict,
    compare_rounds,
    correct_for_many,
    judge,
)


@dataclass(frozen=True)
class Finding:
    """One metric of one trial."""

    label: str
    limit: Limit
    judgement: Judgement


@dataclass(frozen=True)
class Gone:
    """A trial of the base that the new records do not have, or have as FAILED."""

    label: str
    why: str


@dataclass(frozen=True)
class Assessment:
    """Everything that was judged; `only_new` are labels that the base lacks, which are not judged."""

    findings: tuple[Finding, ...]
    gone: tuple[Gone, ...]
    only_new: tuple[str, ...]

    @property
    def exit_code(self) -> Exit:
        """1 for any regression, else 3 for anything that cannot be said, else 0."""
        verdicts = {finding.judgement.verdict for finding in self.findings}
        if self.gone or Verdict.SLOWER in verdicts:
            return Exit.REGRESSION
        return Exit.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts or not verdicts else Exit.DONE


def assess(new: Sequence[Record], base: Sequence[Record], limits: Sequence[Limit]) -> Assessment:
    """Judge the last record of each trial in `new` against that in `base`, paired by trial id.

    Raises RecordError where nothing can be compared: no COMPLETE trial in the base, none in common, records of another
    machine or of other weights or configs under the same path, or figures that were not measured. Raises ConfigError
    for a metric that no record of the base has.
    """
    base_by_id = {record.trial_id: record for record in base if record.state == "COMPLETE"}
    new_by_id = {record.trial_id: record for record in new if record.state != "PRUNED"}
    if not base_by_id:
        raise RecordError("the base has no COMPLETE trial, so there is nothing to compare with")
    _refuse_unmeasured([*base_by_id.values(), *new_by_id.values()])
    both = [trial_id for trial_id in base_by_id if trial_id in new_by_id]
    if not both:
        raise RecordError("the two runs share no trial: their settings differ in every one")
    for trial_id in both:
        _refuse_other_machine(new_by_id[trial_id], base_by_id[trial_id])
        _refuse_other_content(new_by_id[trial_id], base_by_id[trial_id])
    for limit in limits:
        if not any(_has(limit.metric, record) for record in base_by_id.values()):
            why = _why(limit.metric, [r.measurement.reasons for r in base_by_id.values() if r.measurement is not None])
            raise ConfigError("--metric", str(limit), f"no trial of the base has a figure for it ({why}); leave it out")
    both_runs = {**base_by_id, **new_by_id}
    gone = [Gone(r.label, "it is missing") for i, r in base_by_id.items() if i not in new_by_id]
    gone += [Gone(new_by_id[i].label, _failure(new_by_id[i])) for i in both if new_by_id[i].measurement is None]
    pairs = [(new_by_id[i], base_by_id[i]) for i in both if new_by_id[i].measurement is not None]
    level = correct_for_many(max(1, len(pairs) * sum(limit.metric.samples is not None for limit in limits)))
    findings = [
        Finding(ours.label, limit, _judged(limit, ours, theirs, level, _unlike(limit.metric, ours, theirs, both_runs)))
        for ours, theirs in pairs
        for limit in limits
        if not (
            limit.metric.of_likeness and theirs.is_reference and not _has(limit.metric, theirs)
        )  # others are like it
    ]
    only_new = tuple(record.label for i, record in new_by_id.items() if i not in base_by_id)
    return Assessment(tuple(findings), tuple(gone), only_new)


def _judged(limit: Limit, new: Record, base: Record, level: float, unlike: Refusal | None) -> Judgement:
    kind = Kind.RELATIVE if limit.relative else Kind.ABSOLUTE
    outcome = unlike or _outcome(limit, new, base, level)
    return judge(outcome, limit.margin, kind, higher_is_better=limit.metric.higher_is_better)


def _outcome(limit: Limit, new: Record, base: Record, level: float) -> Compared:
    scale, metric = Scale.RATIO if limit.relative else Scale.DIFFERENCE, limit.metric
    assert new.measurement is not None and base.measurement is not None
    if metric.samples is not None:
        ours, theirs = metric.samples(new.measurement), metric.samples(base.measurement)
        outcome = compare_rounds(ours, theirs, scale=scale, level=level)
        if isinstance(outcome, Refusal) and outcome.reason is RefusalReason.TOO_FEW_SAMPLES:
            return Refusal(outcome.reason, f"{outcome.detail}; measure more with measure.min_rounds= and max_rounds=")
        return outcome
    return _exact(metric.read(new.measurement), metric.read(base.measurement), scale, positive=metric.positive)


def _exact(new: float | None, base: float | None, scale: Scale, *, positive: bool) -> Compared:
    """A figure without chance in it: the interval is the figure itself."""
    if new is None or base is None:
        return Refusal(RefusalReason.MISSING, f"the {'new' if new is None else 'base'} record has no such figure")
    if math.isnan(new) or math.isnan(base):
        return Refusal(RefusalReason.NAN, "a figure is NaN")
    if scale is Scale.RATIO and base <= 0:
        return Refusal(RefusalReason.ZERO_BASE, f"the base is {base:g}, and a ratio with it says nothing")
    if positive and new <= 0:
        return Refusal(RefusalReason.ZERO_NEW, f"the new figure is {new:g}, so nothing was measured")
    value = new / base if scale is Scale.RATIO else new - base
    return Comparison(value, value, value, 1, "value", 1.0, scale, "exact")


def _failure(record: Record) -> str:
    reason = record.reason
    return f"it {record.state}: {reason.code}, {reason.message}" if reason else f"it {record.state}"


def _refuse_unmeasured(records: Iterable[Record]) -> None:
    weak = [r.label for r in records if r.source not in (None, "measured")]
    if weak:
        raise RecordError(
            f"{weak[0]} and {len(weak) - 1} more are projected or proxy: only what was measured is judged"
        )


def _refuse_other_machine(new: Record, base: Record) -> None:
    ours, theirs = machine_of(new.environment), machine_of(base.environment)
    changed = [f"{key} {theirs.get(key)} → {value}" for key, value in ours.items() if theirs.get(key) != value]
    if changed:
        raise RecordError(f"the base was measured on another machine or with other versions: {'; '.join(changed)}")


def _refuse_other_content(new: Record, base: Record) -> None:
    """A trial names weights by path: what lay there may have been replaced between the two."""
    if new.measurement is None or base.measurement is None:
        return
    ours, theirs = new.measurement.effective, base.measurement.effective
    kind = ours.differs_in_content(theirs)
    if kind is not None:
        digests = [each.content[kind][:12] for each in (theirs, ours)]
        key = "pipeline.lora" if kind == "lora" else "pipeline.weights"
        raise RecordError(
            f"{new.label} (trial {new.trial_id}): {kind} under the same path have other content, {kind}_sha256 "
            f"{' → '.join(digests)}; measure the base again with the {kind} of today, or keep both under paths of "
            f"their own and compare their speed with zbench ab --a {key}=OLD --b {key}=NEW"
        )


def _unlike(metric: Metric, new: Record, base: Record, records: Mapping[str, Record]) -> Refusal | None:
    """Why two figures of one metric are not of one thing: judged against other references, or by other judges.

    Offload changes no image, so a reference that gave way to one with offload is still the same reference.
    """
    assert new.measurement is not None and base.measurement is not None
    if metric.of_likeness and new.reference_id != base.reference_id:
        references = [records.get(record.reference_id) for record in (new, base)]
        settings = {replace(r.trial, offload=OffloadConfig()).trial_id for r in references if r is not None}
        if None in references or len(settings) > 1:
            return Refusal(RefusalReason.INCOMPARABLE, "the two were judged against other quality references")
    references_now = [Effective.of_content(m.reference_sha256) for m in (new.measurement, base.measurement)]
    if metric.of_likeness and references_now[0].differs_in_content(references_now[1]) is not None:
        return Refusal(RefusalReason.INCOMPARABLE, "the quality reference of the two was made with other weights")
    ours, theirs = (m.judges_sha256.get(metric.judge) for m in (new.measurement, base.measurement))
    if ours is not None and theirs is not None and ours != theirs:
        return Refusal(RefusalReason.INCOMPARABLE, f"measure.{metric.judge} were other weights for the two")
    return None


def _has(metric: Metric, record: Record) -> bool:
    measurement = record.measurement
    if measurement is None:
        return False
    return bool(metric.samples(measurement)) if metric.samples is not None else metric.read(measurement) is not None


def _why(metric: Metric, reasons: Sequence[Mapping[str, str]]) -> str:
    part = metric.name.split(".")[0]
    said = [why for each in reasons for path, why in each.items() if path.split(".")[0] == part]
    return said[0] if said else "not recorded"
