"""What several devices bought: each sharded trial against the trial of the same setting on one device.

The same setting is equal in everything but `parallel`; where that was not measured, it is what the same words come to
on one device (`trial.unsharded`). It must have been measured on the same machine with the same software and content;
otherwise there is no figure, and a sentence says why. Example: one device takes 1.000 s and two take 0.600 s, so that
the speed-up is 1.67 and the efficiency 83 %.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

from zbench.analysis import caveats as doubt
from zbench.analysis.metrics import REGISTRY, STAGES, exposed_share, rank_peak
from zbench.analysis.stages import stage_seconds
from zbench.config import ParallelConfig
from zbench.environment import comparable
from zbench.measurement import Measurement, RankView
from zbench.methods.parallel import ParallelDims
from zbench.record import Record
from zbench.stats import median, paired_speedup
from zbench.stored import TrialKey
from zbench.trial import Trial, unsharded

REQUEST = "request"
"""The whole request, beside STAGES."""

SPLIT = {"text_encode": ("text_encoder", "whole"), "decode": ("vae", "whole")}
"""Stages that are only split where this key of `parallel` is not this value; the denoising always is."""

NOT_MEASURED = "its setting on one device was not measured"
FAILED = "its setting on one device failed"
ELSEWHERE = "its setting on one device was measured on another machine or with other software"
OTHER_SOURCE = "one of the two was measured and the other projected"
NO_PAIR = "it shares no prompt and seed with its setting on one device"


@dataclass(frozen=True)
class StageScaling:
    """Seconds of one stage on one device and on several."""

    one_s: float
    own_s: float
    devices: int
    images: float = 1.0  # a call makes, over those that one device's call makes

    @property
    def speedup(self) -> float:
        """How much shorter it is; the images of a call are not counted."""
        return self.one_s / self.own_s

    @property
    def efficiency(self) -> float:
        """Device-seconds an image on one device over those on all of them: 1 where nothing is lost."""
        return self.speedup * self.images / self.devices


@dataclass(frozen=True)
class Amdahl:
    """What no further device makes shorter, by stage in seconds on one device, and the bound that this sets."""

    serial_s: Mapping[str, float]  # text_encode and decode where they are whole, offload_transfer, other
    scaling_s: float  # what is split
    ranks: int  # devices that make one image together

    @property
    def bound(self) -> float:
        """The most that any number of devices can give; infinite where all is split."""
        return self._with(0.0)

    @property
    def bound_here(self) -> float:
        """The most that these devices can give."""
        return self.bound_on(self.ranks)

    def bound_on(self, ranks: int) -> float:
        """The most that so many devices can give to one image."""
        return self._with(self.scaling_s / ranks)

    def _with(self, split_s: float) -> float:
        serial_s = sum(self.serial_s.values())
        left_s = serial_s + split_s
        return (serial_s + self.scaling_s) / left_s if left_s > 0 else float("inf")


@dataclass(frozen=True)
class DeviceScaling:
    """One sharded trial against its setting on one device. Without that, `why_none` is set and nothing is compared."""

    one: TrialKey | None = None
    why_none: str | None = None
    stages: Mapping[str, StageScaling] = field(default_factory=dict)  # STAGES that were timed, and REQUEST
    forward: StageScaling | None = None  # one computed forward of the transformer
    amdahl: Amdahl | None = None
    otherwise: tuple[str, ...] = ()  # what one device computes otherwise, such as compute.qkv=fused

    @property
    def request(self) -> StageScaling | None:
        """The whole request."""
        return self.stages.get(REQUEST)


class OneDevice:
    """Finds the record of a trial's setting on one device among others."""

    def __init__(self, by_key: Mapping[TrialKey, Record]) -> None:
        self._by_key = by_key

    def compare(self, record: Record) -> DeviceScaling | None:
        """None where the trial is on one device, or has no figures. The record of its own sweep comes first."""
        if ParallelDims.of(record.trial.parallel).devices == 1 or record.valid_measurement is None:
            return None
        found = [
            scaling_of(record, self._by_key[key])
            for setting in self._settings(record.trial)
            for key in sorted(self._keys.get(setting, []), key=lambda k: k[0] != record.sweep)
        ]
        compared = [scaling for scaling in found if scaling.why_none is None]
        return next(iter([*compared, *found]), DeviceScaling(why_none=NOT_MEASURED))

    def setting(self, trial: Trial) -> str:
        """The trial id of its setting on one device, whether there is such a record or not."""
        first, last = self._settings(trial)
        return first if first in self._keys else last

    def _settings(self, trial: Trial) -> tuple[str, str]:
        """What is equal in all else comes first."""
        return replace(trial, parallel=ParallelConfig()).trial_id, unsharded(trial).trial_id

    @cached_property
    def _keys(self) -> dict[str, list[TrialKey]]:
        """By trial id."""
        keys: dict[str, list[TrialKey]] = {}
        for key in self._by_key:
            keys.setdefault(key[1], []).append(key)
        return keys


def scaling_of(record: Record, one: Record) -> DeviceScaling:
    """`record`, on several devices, against `one`, the same setting on one."""
    ours, theirs = record.valid_measurement, one.valid_measurement
    if ours is None or theirs is None:
        return DeviceScaling(why_none=FAILED if one.state == "FAILED" else NOT_MEASURED)
    why = _why_not(record, ours, one, theirs)
    request = paired_speedup(ours.paired_latencies_s, theirs.paired_latencies_s)
    if why is not None or request is None:
        return DeviceScaling(why_none=why or NO_PAIR)
    dims = ParallelDims.of(record.trial.parallel)
    images = _images(ours) / _images(theirs)
    own_s, one_s = stage_seconds(ours), stage_seconds(theirs)
    stages = {s: StageScaling(one_s[s], own_s[s], dims.devices, images) for s in STAGES if own_s.get(s) and s in one_s}
    total_s = _total_s(ours)
    stages[REQUEST] = StageScaling(request * total_s, total_s, dims.devices, images)
    forwards = forward_s(theirs), forward_s(ours)
    forward = StageScaling(forwards[0], forwards[1], dims.devices, images) if forwards[0] and forwards[1] else None
    amdahl = _amdahl(record.trial.parallel, dims, one_s, _total_s(theirs)) if dims.ranks > 1 else None
    return DeviceScaling((one.sweep, one.trial_id), None, stages, forward, amdahl, _otherwise(record.trial, one.trial))


def forward_s(measurement: Measurement) -> float | None:
    """Median seconds of a forward that was computed whole; None where none was timed."""
    if measurement.projection is not None:
        return measurement.projection.computed_step_s
    computed = [
        step_s
        for r in measurement.requests
        if r.valid
        for step, step_s in enumerate(r.steps_s)
        if step not in r.cached_steps and step_s > 0
    ]
    return median(computed) if computed else None


def _otherwise(trial: Trial, one: Trial) -> tuple[str, ...]:
    knobs = [(f.name, getattr(one.compute, f.name)) for f in fields(one.compute)]
    return tuple(f"compute.{knob}={value}" for knob, value in knobs if getattr(trial.compute, knob) != value)


def _why_not(record: Record, ours: Measurement, one: Record, theirs: Measurement) -> str | None:
    """Why the two are not compared; None where they may be."""
    if ours.sources.get("latency") != theirs.sources.get("latency"):
        return OTHER_SOURCE
    measured = ours.projection is None
    if measured and not comparable(record.environment, one.environment):
        return ELSEWHERE
    return doubt.other_content(record, one, "setting on one device")


def _amdahl(parallel: ParallelConfig, dims: ParallelDims, one_s: Mapping[str, float], total_s: float) -> Amdahl:
    """Everything but the denoising is whole, unless `parallel` splits it too."""
    split = {stage for stage, (key, whole) in SPLIT.items() if getattr(parallel, key) != whole} | {"denoise"}
    serial_s = {stage: seconds for stage, seconds in one_s.items() if stage not in split and stage != "other"}
    scaling_s = sum(one_s.get(stage, 0.0) for stage in split)
    rest_s = max(0.0, total_s - scaling_s - sum(serial_s.values()))
    return Amdahl({**serial_s, "other": rest_s}, scaling_s, dims.ranks)


def _total_s(measurement: Measurement) -> float:
    return REGISTRY["latency.median"].read(measurement) or 0.0


def _images(measurement: Measurement) -> int:
    return max((r.images for r in measurement.requests), default=1) or 1


@dataclass(frozen=True)
class RankFigures:
    """What one rank of a trial took and held: medians and peaks over its valid requests."""

    rank: int
    device: str | None
    latency_s: float
    stages_s: Mapping[str, float]
    forward_s: float | None
    peak_bytes: int | None
    peak_kind: str | None  # device, reserved, allocated (torch's allocator) or host RSS
    exposed: float | None  # share of its forwards that is exposed communication


def ranks_of(measurement: Measurement) -> tuple[RankFigures, ...]:
    """By rank, never pooled; empty on one device."""
    return tuple(_rank(measurement, rank) for rank in sorted({r.rank for r in _views(measurement)}))


def _views(measurement: Measurement) -> list[RankView]:
    return [view for r in measurement.requests if r.valid for view in r.ranks]


def _rank(measurement: Measurement, rank: int) -> RankFigures:
    views = [view for view in _views(measurement) if view.rank == rank]
    stages = dict.fromkeys(stage for view in views for stage in view.stages_s)
    peaks = [peak for view in views if (peak := rank_peak(view))[0] is not None]
    size, kind = max(peaks, key=lambda peak: peak[0] or 0, default=(None, None))
    shares = [share for c in measurement.communication if c.rank == rank and (share := exposed_share(c)) is not None]
    return RankFigures(
        rank=rank,
        device=next((view.device for view in views if view.device), None),
        latency_s=median([view.latency_s for view in views]),
        stages_s={s: median([view.stages_s[s] for view in views if s in view.stages_s]) for s in stages},
        forward_s=_median_of(s for view in views for s in view.steps_s),
        peak_bytes=size,
        peak_kind=kind,
        exposed=max(shares, default=None),
    )


def _median_of(seconds: Iterable[float]) -> float | None:
    known = list(seconds)
    return median(known) if known else None
