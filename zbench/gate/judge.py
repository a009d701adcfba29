"""New records against base records, trial by trial and metric by metric; it reads no file and prints nothing.

What is missing or failed is never a pass: a trial of the base that the new records lack, or that failed there, is
a regression, whatever it failed of (images that are none too); a figure that cannot be compared is inconclusive, and so
is every figure of a trial whose images were none in the base already.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from zbench.analysis.caveats import two_levels
from zbench.analysis.metrics import Metric, Samples
from zbench.config import OffloadConfig
from zbench.errors import ConfigError, Exit, RecordError
from zbench.gate.baselines import machine_of
from zbench.gate.limits import Limit
from zbench.measurement import QUALITY_ONLY, Effective, Measurement, Source
from zbench.record import Reason, Record, State
from zbench.stats import (
    EXACT,
    ONE_SAMPLE,
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
from zbench.trial import Trial


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
    """Everything that was judged; `only_new` are labels that the base has no figures of, which are not judged."""

    findings: tuple[Finding, ...]
    gone: tuple[Gone, ...]
    only_new: tuple[str, ...]
    remarks: tuple[str, ...] = ()  # of latencies that were judged, what an interval hides

    @property
    def exit_code(self) -> Exit:
        """1 for any regression, else 3 for anything that cannot be said, else 0."""
        verdicts = {finding.judgement.verdict for finding in self.findings}
        if self.gone or Verdict.SLOWER in verdicts:
            return Exit.REGRESSION
        return Exit.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts or not verdicts else Exit.DONE


@dataclass(frozen=True, slots=True)
class _Told:
    """What a verdict needs of a record, no more; `figures` are those of the limits, in order."""

    trial_id: str
    reference_id: str
    label: str
    state: State
    source: Source | None
    reason: Reason | None
    has_invalid_images: bool
    trial: Trial
    environment: dict[str, Any]
    effective: Effective  # what its content was, if it was measured
    reference_sha256: dict[str, str]
    judges_sha256: dict[str, str]
    reasons: dict[str, str]  # why a figure is None
    figures: tuple[Samples | float | None, ...]
    levels: str | None  # that latencies have two modes or shifted, where they are judged

    @classmethod
    def of(cls, record: Record, limits: Sequence[Limit]) -> "_Told":
        measured = record.measurement
        effective = Effective() if measured is None else measured.effective
        lacks = measured is not None and any(_read(limit.metric, measured) in (None, []) for limit in limits)
        return cls(
            trial_id=record.trial_id,
            reference_id=record.reference_id,
            label=record.label,
            state=record.state,
            source=record.source,
            reason=record.reason,
            has_invalid_images=record.has_invalid_images,
            trial=record.trial,
            environment=record.environment,
            effective=_content(tuple(effective.content.items())),
            reference_sha256=measured.reference_sha256 if measured is not None else {},
            judges_sha256=measured.judges_sha256 if measured is not None else {},
            reasons=measured.reasons if measured is not None and lacks else {},
            figures=tuple(None if measured is None else _read(limit.metric, measured) for limit in limits),
            levels=two_levels(measured) if measured is not None and any(map(_is_latency, limits)) else None,
        )

    @property
    def is_reference(self) -> bool:
        return self.trial_id == self.reference_id

    def has(self, place: int) -> bool:
        """Whether there is a figure for the limit at this place."""
        return self.figures[place] not in (None, [])


@lru_cache(maxsize=1024)
def _content(known: tuple[tuple[str, str], ...]) -> Effective:
    return Effective.of_content(dict(known))


def _is_latency(limit: Limit) -> bool:
    return limit.metric.about == "latency" and limit.metric.samples is not None


def _read(metric: Metric, measurement: Measurement) -> Samples | float | None:
    return metric.read(measurement) if metric.samples is None else metric.samples(measurement)


def assess(new: Iterable[Record], base: Iterable[Record], limits: Sequence[Limit]) -> Assessment:
    """Judge the last record of each trial in `new` against that in `base`, paired by trial id.

    Raises RecordError where nothing can be compared: no COMPLETE trial in the base (and none whose images are none),
    none in common, records of another machine or of other weights or configs under the same path, or figures that were
    not measured. Raises ConfigError for a metric that no record of the base has.
    """
    bases = {record.trial_id: _Told.of(record, limits) for record in base}
    base_by_id = {i: told for i, told in bases.items() if told.state == "COMPLETE"}
    spoilt_base = {i: told for i, told in bases.items() if told.has_invalid_images}
    new_by_id = {record.trial_id: _Told.of(record, limits) for record in new if record.state != "PRUNED"}
    if not base_by_id and not spoilt_base:
        raise RecordError("the base has no COMPLETE trial, so there is nothing to compare with")
    _refuse_unmeasured([*base_by_id.values(), *new_by_id.values()])
    both = [trial_id for trial_id in base_by_id if trial_id in new_by_id]
    spoilt = [(new_by_id[i], record) for i, record in spoilt_base.items() if i in new_by_id]
    if not both and not spoilt:
        raise RecordError("the two runs share no trial: their settings differ in every one")
    for ours, theirs in [*((new_by_id[i], base_by_id[i]) for i in both), *spoilt]:
        _refuse_other_machine(ours, theirs)
    pairs = [(new_by_id[i], base_by_id[i]) for i in both if new_by_id[i].state == "COMPLETE"]
    for ours, theirs in pairs:
        _refuse_other_content(ours, theirs)
    if not spoilt:  # of which the figure may be
        _refuse_what_none_has(limits, list(base_by_id.values()))
    both_runs = {**base_by_id, **new_by_id}
    gone = [Gone(r.label, "it is missing") for i, r in base_by_id.items() if i not in new_by_id]
    gone += [Gone(new_by_id[i].label, _failure(new_by_id[i])) for i in both if new_by_id[i].state != "COMPLETE"]
    level = correct_for_many(max(1, len(pairs) * sum(limit.metric.samples is not None for limit in limits)))
    findings = [
        Finding(ours.label, limit, _judged(limit, place, ours, theirs, level, both_runs))
        for ours, theirs in pairs
        for place, limit in enumerate(limits)
        if not (limit.metric.of_likeness and theirs.is_reference and not theirs.has(place))  # others are like it
    ]
    findings += [Finding(ours.label, limit, _unjudged(theirs, limit)) for ours, theirs in spoilt for limit in limits]
    judged = base_by_id.keys() | spoilt_base.keys()
    only_new = tuple(told.label for i, told in new_by_id.items() if i not in judged)
    sides = [(side, told) for pair in pairs for side, told in zip(("new", "base"), pair, strict=True)]
    remarks = tuple(f"{told.label}, {side}: {told.levels}" for side, told in sides if told.levels is not None)
    return Assessment(tuple(findings), tuple(gone), only_new, remarks)


def _unjudged(base: _Told, limit: Limit) -> Judgement:
    """Where the base's images were none already: nothing of it says how fast or good it was."""
    why = f": {base.reason.message}" if base.reason else ""
    kind = Kind.RELATIVE if limit.relative else Kind.ABSOLUTE
    return judge(Refusal(RefusalReason.FAILED, f"the base's images were not valid{why}"), limit.margin, kind)


def _judged(
    limit: Limit, place: int, new: _Told, base: _Told, level: float, both_runs: Mapping[str, _Told]
) -> Judgement:
    kind = Kind.RELATIVE if limit.relative else Kind.ABSOLUTE
    unlike = _unlike(limit.metric, new, base, both_runs)
    outcome = (
        unlike
        or _untimed(limit.metric, place, new, base)
        or _outcome(limit, new.figures[place], base.figures[place], level)
    )
    return judge(outcome, limit.margin, kind, higher_is_better=limit.metric.higher_is_better)


def _untimed(metric: Metric, place: int, new: _Told, base: _Told) -> Refusal | None:
    """Where images alone were asked for: more rounds are no way out."""
    for side, told in (("new", new), ("base", base)):
        if metric.about == "latency" and not told.has(place) and told.reasons.get("latency") == QUALITY_ONLY:
            return Refusal(RefusalReason.MISSING, f"the {side} record was not timed ({QUALITY_ONLY})")
    return None


def _outcome(limit: Limit, new: Samples | float | None, base: Samples | float | None, level: float) -> Compared:
    scale = Scale.RATIO if limit.relative else Scale.DIFFERENCE
    if isinstance(new, list) and isinstance(base, list):
        outcome = compare_rounds(new, base, scale=scale, level=level)
        if isinstance(outcome, Refusal) and outcome.reason is RefusalReason.TOO_FEW_SAMPLES:
            return Refusal(outcome.reason, f"{outcome.detail}; measure more with measure.min_rounds= and max_rounds=")
        return outcome
    assert not isinstance(new, list) and not isinstance(base, list)
    return _exact(new, base, scale, positive=limit.metric.positive, method=ONE_SAMPLE if limit.metric.once else EXACT)


def _exact(new: float | None, base: float | None, scale: Scale, *, positive: bool, method: str) -> Compared:
    """A figure without chance in it, or one that a run has once: the interval is the figure itself."""
    if new is None or base is None:
        return Refusal(RefusalReason.MISSING, f"the {'new' if new is None else 'base'} record has no such figure")
    if math.isnan(new) or math.isnan(base):
        return Refusal(RefusalReason.NAN, "a figure is NaN")
    if scale is Scale.RATIO and base <= 0:
        return Refusal(RefusalReason.ZERO_BASE, f"the base is {base:g}, and a ratio with it says nothing")
    if positive and new <= 0:
        return Refusal(RefusalReason.ZERO_NEW, f"the new figure is {new:g}, so nothing was measured")
    value = new / base if scale is Scale.RATIO else new - base
    return Comparison(value, value, value, 1, "value", 1.0, scale, method)


def _failure(record: _Told) -> str:
    reason = record.reason
    if reason is None:
        return f"it {record.state}"
    lead = "images are no longer valid" if record.has_invalid_images else f"it {record.state}"
    return f"{lead}: {reason.code}, {reason.message}"


def _refuse_what_none_has(limits: Sequence[Limit], base: Sequence[_Told]) -> None:
    for place, limit in enumerate(limits if base else ()):
        if not any(told.has(place) for told in base):
            why = _why(limit.metric, [told.reasons for told in base])
            raise ConfigError("--metric", str(limit), f"no trial of the base has a figure for it ({why}); leave it out")


def _refuse_unmeasured(records: Iterable[_Told]) -> None:
    weak = [r.label for r in records if r.source not in (None, "measured")]
    if weak:
        raise RecordError(
            f"{weak[0]} and {len(weak) - 1} more are projected or proxy: only what was measured is judged"
        )


def _refuse_other_machine(new: _Told, base: _Told) -> None:
    if new.environment is base.environment:
        return
    ours, theirs = machine_of(new.environment), machine_of(base.environment)
    changed = [f"{key} {theirs.get(key)} → {value}" for key, value in ours.items() if theirs.get(key) != value]
    if changed:
        raise RecordError(f"the base was measured on another machine or with other versions: {'; '.join(changed)}")


def _refuse_other_content(new: _Told, base: _Told) -> None:
    """A trial names weights by path: what lay there may have been replaced between the two."""
    ours, theirs = new.effective, base.effective
    kind = ours.differs_in_content(theirs)
    if kind is not None:
        digests = [each.content[kind][:12] for each in (theirs, ours)]
        key = "pipeline.lora" if kind == "lora" else "pipeline.weights"
        raise RecordError(
            f"{new.label} (trial {new.trial_id}): {kind} under the same path have other content, {kind}_sha256 "
            f"{' → '.join(digests)}; measure the base again with the {kind} of today, or keep both under paths of "
            f"their own and compare their speed with zbench ab --a {key}=OLD --b {key}=NEW"
        )


def _unlike(metric: Metric, new: _Told, base: _Told, records: Mapping[str, _Told]) -> Refusal | None:
    """Why two figures of one metric are not of one thing: judged against other references, or by other judges.

    Offload changes no image, so a reference that gave way to one with offload is still the same reference.
    """
    if metric.of_likeness and new.reference_id != base.reference_id:
        references = [records.get(record.reference_id) for record in (new, base)]
        settings = {replace(r.trial, offload=OffloadConfig()).trial_id for r in references if r is not None}
        if None in references or len(settings) > 1:
            return Refusal(RefusalReason.INCOMPARABLE, "the two were judged against other quality references")
    then, now = (Effective.of_content(m.reference_sha256) for m in (base, new))
    if metric.of_likeness and now.differs_in_content(then) is not None:
        return Refusal(RefusalReason.INCOMPARABLE, "the quality reference of the two was made with other weights")
    ours, theirs = (m.judges_sha256.get(metric.judge) for m in (new, base))
    if ours is not None and theirs is not None and ours != theirs:
        return Refusal(RefusalReason.INCOMPARABLE, f"measure.{metric.judge} were other weights for the two")
    return None


def _why(metric: Metric, reasons: Sequence[Mapping[str, str]]) -> str:
    part = metric.name.split(".")[0]
    said = [why for each in reasons for path, why in each.items() if path.split(".")[0] == part]
    return said[0] if said else "not recorded"
