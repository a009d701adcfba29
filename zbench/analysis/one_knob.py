"""One knob, all else equal: what each swept value does beside its neighbour, to time, steps, memory and images.

Two trials are neighbours where one knob alone parts them, and no value of it that was measured lies between. It refuses
to compare trials of other references or of load, and derives everything from raw rounds.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from zbench.analysis.figures import TrialFigures
from zbench.analysis.labels import flatten
from zbench.analysis.metrics import HOST_RSS, rounds_by_image
from zbench.analysis.time_ratio import TimeRatio, time_ratio
from zbench.analysis.view import View
from zbench.config import ComputeConfig
from zbench.config.cache import SCM_PRESETS
from zbench.measurement import Measurement
from zbench.methods import graphs, quantization
from zbench.methods.cache import method_of
from zbench.record import Record
from zbench.trial import Trial

TAYLORSEER = "cache.taylorseer_order"
"""The knob that stands for both of TaylorSeer's: off, or its order."""

MASK = "cache.steps_mask"
"""No knob: of many masks none lies beside another."""

OFF = "off"
GROUPS = ("compute",)
"""Groups whose choices differ in several keys at once, and are one knob: compiled, and as one launch."""

OF_QUANTIZING = ("quantization", "scope", "norms")
"""Keys of `compute` that are one knob, for the others mean nothing without the first."""

PLAIN = ("eager", "padded", "split", "complex")
FIRST = (None, OFF, "none", "auto", *PLAIN, "short", "channels_last", "compiled", "graph", *SCM_PRESETS)
"""Values in the order of a table: what is off, or as PyTorch has it, before what does more."""

SAME_MEMORY = 0.02  # relative; equal work in one process differs by so much
SAME_TIME = 1.05  # an interval within this factor either way, around 1, is that of a time that did not change


@dataclass(frozen=True)
class Effect:
    """A difference, new less base, over the images that both have: its mean, the least and the largest."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class KnobPair:
    """Two trials that one knob parts; `base` has the value before."""

    knob: str
    values: tuple[Any, Any]
    base: TrialFigures
    new: TrialFigures
    latency: TimeRatio | None  # None where there are too few rounds
    skipped: Effect | None  # steps an image; None where an engine does not say
    memory_bytes: int | None  # one peak of each, without an interval; None where they cannot be compared
    ssim: Effect | None  # likeness to the reference's images, a reference's own being 1
    same_steps: bool | None  # of every image; None where an engine does not say
    same_images: bool | None  # to the last byte; None where that is not known

    @property
    def is_inert(self) -> bool:
        """Whether it changed neither steps, images, time nor memory; trials by turns have no memory of their own."""
        if not self.same_images or self.same_steps is False or self.latency is None:
            return False
        of_base = self.base.peak_memory_bytes or 0
        same_memory = self.memory_bytes is None or abs(self.memory_bytes) <= SAME_MEMORY * of_base
        low, high = self.latency.low, self.latency.high
        return same_memory and low <= 1 <= high and low >= 1 / SAME_TIME and high <= SAME_TIME

    @property
    def pays_after(self) -> float | None:
        """Calls after which a faster setting has made up for a start that takes longer; None where it has not to."""
        cold = [(row.load_s, row.first_request_s, row.latency_median_s) for row in (self.base, self.new)]
        known = [value for each in cold for value in each if value is not None]
        if self.latency is None or self.latency.high >= 1 or len(known) < 6:
            return None
        base_load_s, base_first_s, base_s, load_s, first_s, warm_s = known
        extra_s = (load_s + first_s) - (base_load_s + base_first_s)
        return None if extra_s <= 0 or warm_s >= base_s else extra_s / (base_s - warm_s)


def knob_pairs(view: View) -> list[KnobPair]:
    """Of all COMPLETE trials that were measured here, by knob, in the order of the table."""
    pairs = [
        (row, record)
        for row, record in view.pairs
        if row.state == "COMPLETE" and row.source == "measured" and row.arrivals == "sequential"
    ]
    groups: dict[tuple[str, str], list[tuple[TrialFigures, Record]]] = defaultdict(list)
    for row, record in pairs:
        groups[row.sweep, row.reference_id].append((row, record))
    found = [each for group in groups.values() for each in _of_group(group)]
    order = {knob: place for place, knob in enumerate(dict.fromkeys(each.knob for each in found))}
    return sorted(found, key=lambda each: order[each.knob])


def knobs_of(trial: Trial) -> dict[str, Any]:
    """The config values that a trial has, by knob: what means nothing is left out, what is one choice is one knob."""
    leaves = {
        key: value
        for key, value in flatten(trial.to_dict()).items()
        if key.partition(".")[0] not in ("cache", *GROUPS) and not key.endswith(".name")
    }
    cache = {f"cache.{key}": value for key, value in method_of(trial.cache).parameters.items()}
    if cache.pop("cache.enable_taylorseer", None) is False:
        cache[TAYLORSEER] = OFF
    return leaves | {"cache.method": trial.cache.method} | cache | _of_compute(trial.compute)


def _of_compute(compute: ComputeConfig) -> dict[str, Any]:
    """Compiling and capturing are one knob, what is quantised is another; the rest as it is, defaults too."""
    own = ("grid", "compile", "graphs", *OF_QUANTIZING)
    rest = {f"compute.{f.name}": getattr(compute, f.name) for f in fields(compute) if f.name not in own}
    stack = "compiled" if compute.compile else "eager"
    captured = graphs.label(compute.graphs)
    if captured is not None:
        stack = captured if compute.compile and compute.graphs == graphs.ALL else f"{stack} {captured}"
    return rest | {"compute": stack, quantization.KEY: quantization.label(compute) or quantization.NONE}


def _of_group(group: Sequence[tuple[TrialFigures, Record]]) -> Iterator[KnobPair]:
    """Trials of one reference: those that are equal but for one knob, each beside the one with the value before."""
    settings = [knobs_of(record.trial) for _, record in group]
    knobs = {key for one in settings for key in one if len({repr(other.get(key)) for other in settings}) > 1}
    for knob in sorted(knobs - {"cache.method", MASK}):
        contexts: dict[str, list[int]] = defaultdict(list)
        for place, setting in enumerate(settings):
            if knob in setting:
                contexts[repr(sorted((k, repr(v)) for k, v in setting.items() if k != knob))].append(place)
        for places in contexts.values():
            ordered = sorted(places, key=lambda place: _rank(settings[place][knob]))
            for before, after in pairwise(ordered):
                if settings[before][knob] != settings[after][knob]:
                    yield _beside(knob, settings, (before, after), group)


def _rank(value: Any) -> tuple[int, float, str]:
    """Off, default and eager before what they are beside, numbers by size, the rest by name."""
    if isinstance(value, bool | int | float):
        return 1, float(value), ""
    return (0, float(FIRST.index(value)), "") if value in FIRST else (2, 0.0, str(value))


def _beside(
    knob: str,
    settings: Sequence[Mapping[str, Any]],
    places: tuple[int, int],
    group: Sequence[tuple[TrialFigures, Record]],
) -> KnobPair:
    (base, of_base), (new, of_new) = (group[place] for place in places)
    theirs, ours = of_base.valid_measurement, of_new.valid_measurement
    assert theirs is not None and ours is not None, "COMPLETE trials were measured"
    one_process = (base.launched_for or base.trial_id) == (new.launched_for or new.trial_id)
    told = all(m.effective.tells_cached_steps is not False for m in (theirs, ours))
    steps = [_by_image(m, "cached_steps") for m in (theirs, ours)]
    counts = [{image: sum(map(len, each)) / len(each) for image, each in one.items()} for one in steps]
    hashes = [_by_image(m, "image_sha256") for m in (theirs, ours)]
    known = all(one is not None for side in hashes for each in side.values() for one in each) and all(hashes)
    kinds = {base.memory_kind, new.memory_kind}
    told_apart = len(kinds) == 1 and not (one_process and HOST_RSS in kinds)
    peaks = base.peak_memory_bytes, new.peak_memory_bytes
    knob, values = _named(knob, (settings[places[0]][knob], settings[places[1]][knob]), (of_base.trial, of_new.trial))
    return KnobPair(
        knob=knob,
        values=values,
        base=base,
        new=new,
        latency=time_ratio(of_new, of_base, one_process=one_process),
        skipped=_effect(*counts) if told else None,
        memory_bytes=None if None in peaks or not told_apart else peaks[1] - peaks[0],  # type: ignore[operator]
        ssim=_effect(_ssim(of_base), _ssim(of_new)),
        same_steps=_same(*steps) if told else None,
        same_images=_same(*hashes) if known else None,
    )


def _named(knob: str, values: tuple[Any, Any], trials: tuple[Trial, Trial]) -> tuple[str, tuple[Any, Any]]:
    """The knob as it is typed, where of what quantising is made of one part alone differs, such as `compute.norms`."""
    if knob == quantization.KEY:
        each = ((name, tuple(getattr(trial.compute, name) for trial in trials)) for name in OF_QUANTIZING)
        differing = [(name, (before, after)) for name, (before, after) in each if before != after]
        if len(differing) == 1:
            return f"compute.{differing[0][0]}", differing[0][1]
    return knob, values


def _by_image(measurement: Measurement, field: str) -> dict[Any, list[Any]]:
    """Of each prompt and seed what its valid rounds had."""
    return {
        image: [getattr(r, field) for r in rounds] for image, rounds in rounds_by_image(measurement.requests).items()
    }


def _same(one: Mapping[Any, Sequence[Any]], other: Mapping[Any, Sequence[Any]]) -> bool:
    """Whether every round of every image had one and the same, and both have the same images."""
    if one.keys() != other.keys():
        return False
    return all(len({repr(value) for value in (*one[image], *other[image])}) == 1 for image in one)


def _ssim(record: Record) -> dict[tuple[str, int], float]:
    measured = record.valid_measurement
    if measured is None or record.is_reference:
        return {} if measured is None else dict.fromkeys(rounds_by_image(measured.requests), 1.0)
    return {(q.prompt_id, q.seed): q.ssim for q in measured.quality or ()}


def _effect(base: Mapping[Any, float], new: Mapping[Any, float]) -> Effect | None:
    shared = [new[image] - base[image] for image in base if image in new]
    return Effect(sum(shared) / len(shared), min(shared), max(shared)) if shared else None
