"""The trials on several devices of a view, each against its setting on one, in groups that use the same devices."""

from collections.abc import Iterable
from dataclasses import dataclass

from zbench.analysis.figures import TrialFigures
from zbench.analysis.scaling import DeviceScaling, OneDevice, RankFigures, forward_s, ranks_of
from zbench.analysis.stages import stage_seconds
from zbench.analysis.view import View
from zbench.methods.parallel import ParallelDims
from zbench.record import Record


@dataclass(frozen=True)
class ShardedTrial:
    """One trial on several devices, or the trial on one that others are held against."""

    row: TrialFigures
    setting: str  # the trial id of its setting on one device
    scaling: DeviceScaling | None  # None on one device
    forward_s: float | None
    decode_s: float | None
    ranks: tuple[RankFigures, ...]

    @property
    def is_data_parallel(self) -> bool:
        """Whether each of its devices makes images of its own."""
        return self.row.devices > 1 and self.row.dp_size == self.row.devices


@dataclass(frozen=True)
class ImagesSideBySide:
    """Images/s of one image a device: the other use of the same devices."""

    row: TrialFigures  # what was measured: the data-parallel trial, or the one on one device
    images_per_s: float
    is_measured: bool  # else it is `devices` times one device's, a projection


@dataclass(frozen=True)
class SameDevices:
    """The trials of one setting on one number of devices."""

    setting: str
    devices: int
    one: TrialFigures | None  # the same setting on one device
    trials: tuple[ShardedTrial, ...]
    side_by_side: ImagesSideBySide | None


@dataclass(frozen=True)
class PrunedTopologies:
    """Topologies that cannot work for one reason."""

    reason: str
    topologies: tuple[str, ...]  # as labels spell them: `tp3`, `u2 r2`


def sharded_trials(view: View) -> list[ShardedTrial]:
    """Those on several devices, and their settings on one where those are there; empty where none is sharded.

    A setting's trial on one device comes first, then fewer devices before more, then the fastest first.
    """
    if all(row.devices == 1 for row in view.complete):
        return []
    one_device, found = OneDevice(view.by_key), []
    for row in view.complete:
        record = view.by_key[row.key]
        scaling, setting = one_device.compare(record), row.trial_id
        if row.devices > 1:
            held = None if scaling is None else scaling.one
            setting = one_device.setting(record.trial) if held is None else held[1]
        found.append(_sharded(row, record, setting, scaling))
    wanted = {trial.setting for trial in found if trial.row.devices > 1}
    order = {setting: place for place, setting in enumerate(dict.fromkeys(trial.setting for trial in found))}
    kept = [trial for trial in found if trial.setting in wanted]
    return sorted(kept, key=lambda t: (order[t.setting], t.row.devices, t.row.latency_median_s or 0.0))


def same_devices(trials: Iterable[ShardedTrial]) -> list[SameDevices]:
    """The trials on several devices by setting and number of devices, in their order."""
    every = list(trials)
    groups: dict[tuple[str, int], list[ShardedTrial]] = {}
    for trial in every:
        if trial.row.devices > 1:
            groups.setdefault((trial.setting, trial.row.devices), []).append(trial)
    by_key = {trial.row.key: trial.row for trial in every}
    found = []
    for (setting, devices), members in groups.items():
        keys = [trial.scaling.one for trial in members if trial.scaling is not None and trial.scaling.one is not None]
        one = next((by_key[key] for key in keys if key in by_key), None)
        found.append(SameDevices(setting, devices, one, tuple(members), _side_by_side(members, devices, one)))
    return found


def pruned_topologies(view: View) -> list[PrunedTopologies]:
    """What was left out before it ran, by reason: topologies alone, each once."""
    by_reason: dict[str, dict[str, None]] = {}
    for row in view.trials:
        if row.state == "PRUNED" and row.devices > 1:
            labels = ParallelDims.of(view.by_key[row.key].trial.parallel).labels
            by_reason.setdefault(row.reason or "", {})[" ".join(labels)] = None
    return [PrunedTopologies(reason, tuple(topologies)) for reason, topologies in by_reason.items()]


def _sharded(row: TrialFigures, record: Record, setting: str, scaling: DeviceScaling | None) -> ShardedTrial:
    measured = record.valid_measurement
    if measured is None:
        return ShardedTrial(row, setting, scaling, None, None, ())
    decode_s = stage_seconds(measured).get("decode")
    return ShardedTrial(row, setting, scaling, forward_s(measured), decode_s, ranks_of(measured))


def _side_by_side(members: Iterable[ShardedTrial], devices: int, one: TrialFigures | None) -> ImagesSideBySide | None:
    rates = [t.row for t in members if t.is_data_parallel and t.row.images_per_s is not None and t.row.is_trusted]
    if rates:
        best = max(rates, key=lambda row: row.images_per_s or 0.0)
        return ImagesSideBySide(best, best.images_per_s or 0.0, is_measured=True)
    if one is None or one.images_per_s is None:
        return None
    return ImagesSideBySide(one, devices * one.images_per_s, is_measured=False)
