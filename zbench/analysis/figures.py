"""The figures of one trial, derived from the raw samples of its record, every time anew.

It refuses to mix sources (a speed-up compares measured with measured or projected with projected) and content (a trial
is never compared with a reference or baseline of other weights). It formats nothing.
"""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from zbench.analysis import caveats as doubt
from zbench.analysis.metrics import REGISTRY, latencies_s, peak_memory
from zbench.analysis.projected import latency_ends, memory_ends, speedup_ends
from zbench.analysis.quality import likeness
from zbench.analysis.speedup import measured_noise, speedup_of
from zbench.config import ParallelConfig, ServedEngineConfig
from zbench.config.arrivals import OF_KINDS
from zbench.environment import device_of
from zbench.measurement import QUALITY_ONLY, REFERENCE_INVALID, Measurement, Source
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims
from zbench.record import Record, State
from zbench.stats import median_interval
from zbench.trial import Trial

NOT_VALIDATED = "not validated on Z-Image-Turbo"
OTHER_CONTENT = "other_content"  # why a figure is None: what it would be compared with has other weights or configs
OTHER_ARRIVALS = "other_arrivals"  # why a speed-up is None: requests of what it would be over came in another way
OTHER_DEVICE = "other_device"  # why a speed-up is None: what it would be over was measured on another kind of device
BASELINE_INVALID = "baseline_invalid"  # why a speed-up is None: images of what it would be over are none

UNSHARDED = ParallelConfig()
DEGREES = ("dp", "cfg", "tp", "ulysses", "ring", "gather")

FROM_REGISTRY = {
    "latency_median_s": "latency.median",
    "latency_p90_s": "latency.p90",
    "latency_p95_s": "latency.p95",
    "latency_p99_s": "latency.p99",
    "response_p95_s": "response.p95",
    "queue_p95_s": "queue.p95",
    "server_s": "server.told",
    "outside_s": "server.outside",
    "requests_per_s": "requests.rate",
    "goodput_per_s": "goodput",
    "failed_requests": "requests.failed",
    "images_per_s": "throughput",
    "device_memory_bytes": "memory.on_device",
    "joules_an_image": "energy.per_image",
    "rank_memory_bytes": "memory.rank",
    "exposed_communication": "communication.exposed",
    "cached_steps": "steps.cached",
    "psnr_mean_db": "quality.psnr",
    "psnr_worst_db": "quality.psnr.worst",
    "ssim_mean": "quality.ssim",
    "ssim_worst": "quality.ssim.worst",
    "ms_ssim_mean": "quality.ms_ssim",
    "ms_ssim_worst": "quality.ms_ssim.worst",
    "latent_rel_error": "quality.latent_rel_error",
    "latent_rel_error_worst": "quality.latent_rel_error.worst",
    "lpips_mean": "quality.lpips",
    "lpips_worst": "quality.lpips.worst",
    "prompt_fidelity_mean": "quality.prompt",
    "prompt_fidelity_worst": "quality.prompt.worst",
    "clip_mean": "quality.clip",
    "clip_worst": "quality.clip.worst",
}
"""Fields of TrialFigures that are metrics of the registry."""

FIELDS = {name: field for field, name in FROM_REGISTRY.items()}
"""The other way round."""


Reasons = tuple[tuple[str, str], ...]
"""A value's path and why it is None."""


@dataclass(frozen=True)
class TrialFigures:
    """A trial's figures. None: it cannot be had, and `missing` says why."""

    sweep: str
    trial_id: str
    reference_id: str  # the trial whose images its own are judged against
    baseline_id: str  # the trial its speed-up is over
    reference_weights: str | None  # `pipeline.weights` of its reference, where those are others on purpose
    label: str
    family: str  # none, dbcache, taylorseer, scm, or the name of a method from outside zbench
    is_reference: bool
    is_baseline: bool
    has_default_cache: bool  # DBCache with cache-dit's own defaults
    state: State
    source: Source | None
    offload: str  # where weights wait: none, text_encoder, …
    latency_median_s: float | None = None
    latency_low_s: float | None = None  # 95 % interval of the median; None under 6 rounds; of a projection 90 %
    latency_high_s: float | None = None
    latency_p90_s: float | None = None
    load_s: float | None = None  # cold: what it took to load the pipeline; None where that was resident
    first_request_s: float | None = None  # cold: the first call after that
    compile_s: float | None = None  # of its calls, warm-up and window, in which code was compiled or captured
    launched_for: str | None = None  # of a resident pipeline, the trial that it was loaded for
    resident_after: str | None = None  # that trial's label, where it is here and has figures
    resident_load_s: float | None = None  # what that one's load took
    resident_first_request_s: float | None = None  # and its first call
    speedup: float | None = None  # baseline's time for the workload over this one's (`analysis.speedup`)
    speedup_low: float | None = None  # its 95 % interval; None projected, under load, or from too few requests
    speedup_high: float | None = None
    speedup_way: str | None = None  # paired, chained or unpaired: how it was measured
    equal_workers: float | None = None  # by how much equal processes differ there, a share; None: not measured
    equal_workers_told: str | None = None  # when and of what that was measured, or why it is not used
    projected_speedup_low: float | None = None  # of a projection: 90 % range of `speedup`
    projected_speedup_high: float | None = None
    projected_memory_low: float | None = None  # the same of `peak_memory_bytes`
    projected_memory_high: float | None = None
    images: int = 1  # a call, which latencies are of
    images_per_s: float | None = None  # images over the window's wall time
    peak_memory_bytes: int | None = None
    memory_kind: str | None = None  # device, reserved, allocated (torch's allocator) or host RSS
    device_memory_bytes: int | None = None  # that peak where it is the device's, as torch or NVML saw it
    hardware: str | None = None  # title of what it is projected onto
    hardware_memory_gib: float | None = None  # of one device of it, or the cap it was held to
    cached_steps: float | None = None  # mean an image
    steps: int | None = None
    identical_images: int | None = None
    compared_images: int | None = None
    psnr_mean_db: float | None = None  # of the mean squared error over all images; identical ones count as 100 dB
    psnr_worst_db: float | None = None
    ssim_mean: float | None = None
    ssim_worst: float | None = None
    ms_ssim_mean: float | None = None
    ms_ssim_worst: float | None = None
    latent_rel_error: float | None = None  # mean
    latent_rel_error_worst: float | None = None  # the largest
    lpips_mean: float | None = None
    lpips_worst: float | None = None  # the largest
    within_noise: bool = False  # no image differs more than the reference's own do when they are made twice
    prompt_fidelity_mean: float | None = None  # share of the attributes asked for that are right, 0 to 1
    prompt_fidelity_worst: float | None = None
    clip_mean: float | None = None  # 0 to 100
    clip_worst: float | None = None
    noise_identical: bool | None = None  # of a reference: whether its images made once more are the same
    noise_ssim_worst: float | None = None
    noise_psnr_worst_db: float | None = None  # of the images that are not identical
    latency_source: Source | None = None
    memory_source: Source | None = None
    cached_steps_source: Source | None = None
    quality_source: Source | None = None
    stop_reason: str | None = None
    rounds: int = 0  # valid ones
    invalid_rounds: int = 0
    joules_an_image: float | None = None  # of the whole device over the timed block; None under 10 s of it
    ran_beside: int = 0  # other trials that ran on the machine meanwhile
    power_limited: float | None = None  # share of the device's samples in which its power limit held its clock down
    disturbed_rounds: int = 0  # by the host; they count all the same
    device: str | None = None  # what it was measured on: a GPU's name, or the CPU's; None where it is projected
    node: str | None = None  # the machine of a cluster
    devices: int = 1
    dp_size: int = 1
    cfg_size: int = 1
    tp_size: int = 1
    ulysses_size: int = 1
    ring_size: int = 1
    gather_size: int = 1
    one_device_speedup: float | None = None  # time of the same setting on one device over its own (`scaling`)
    parallel_efficiency: float | None = None  # device-seconds an image on one device over its own
    exposed_communication: float | None = None  # share of the forwards of the rank that waits most
    rank_memory_bytes: int | None = None  # peak of the fullest rank
    arrivals: str = "sequential"  # of its requests; the others are load
    latency_p95_s: float | None = None
    latency_p99_s: float | None = None
    response_p95_s: float | None = None  # of a load: from due to done, failed requests never done
    queue_p95_s: float | None = None  # of a load: from due to begun
    server_s: float | None = None  # what a server says that it took of a lone request: not what its client waited
    outside_s: float | None = None  # what that leaves out of the request's latency
    requests_per_s: float | None = None  # of a load: those that brought an image, over its duration
    goodput_per_s: float | None = None  # of a load: those within workload.latency_objective_s
    failed_requests: int | None = None  # of a load
    image_format: str | None = None  # in which a server's pictures came
    cut_prompts: str | None = None  # which of its prompts were longer than the pipeline takes, a sentence
    caveats: tuple[str, ...] = ()  # why these figures should not be trusted
    missing: Reasons = ()  # value's path, why it is None
    reason_code: str | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Sweep and trial id."""
        return self.sweep, self.trial_id

    @property
    def is_trusted(self) -> bool:
        """Whether nothing speaks against these figures: only then may the trial be called the best of any."""
        return not self.caveats

    @property
    def misfit(self) -> str | None:
        """That it needs more memory than the hardware it is projected onto has, which is one of its caveats."""
        peak, memory_gib = self.peak_memory_bytes, self.hardware_memory_gib
        if peak is None or memory_gib is None or peak <= memory_gib * 2**30:
            return None
        return f"does not fit into the {memory_gib:g} GiB of {self.hardware or 'its cap'}"

    @property
    def doubts(self) -> tuple[str, ...]:
        """Its caveats but a projection's `misfit`: why the figures themselves should not be trusted."""
        return tuple(caveat for caveat in self.caveats if self.hardware is None or caveat != self.misfit)

    @property
    def is_untimed(self) -> bool:
        """Whether its images alone were asked for."""
        return self.why_missing("latency") == QUALITY_ONLY

    @property
    def is_identical(self) -> bool:
        """Whether every image equals the reference's."""
        return bool(self.compared_images) and self.identical_images == self.compared_images

    @property
    def is_unchanged(self) -> bool:
        """Whether no image differs from the reference's by more than noise."""
        return self.is_identical or self.within_noise

    @property
    def is_faster(self) -> bool:
        """Whether it is faster than its baseline by as much as a speed-up shows: 1.00× is not."""
        return self.speedup is not None and round(self.speedup, 2) > 1

    def may_equal(self, other: "TrialFigures") -> bool:
        """Whether their intervals overlap: those of their speed-ups, where both are projections that have one."""
        ends = (self.projected_speedup_low, self.projected_speedup_high)
        others = (other.projected_speedup_low, other.projected_speedup_high)
        if None in ends or None in others:
            ends, others = (self.latency_low_s, self.latency_high_s), (other.latency_low_s, other.latency_high_s)
        (low, high), (other_low, other_high) = ends, others
        if low is None or high is None or other_low is None or other_high is None:
            return False
        return low <= other_high and other_low <= high

    def why_missing(self, path: str) -> str | None:
        """Why `path` (`quality`, `memory.peak_device_bytes`, …) is None, if its worker said so."""
        said = dict(self.missing)
        return said.get(path) or said.get(path.split(".", maxsplit=1)[0])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "missing": dict(self.missing)}


def figures_of(
    record: Record, label: str, reference: Record | None, baseline: Record | None, companion: Record | None = None
) -> TrialFigures:
    """Of a record, whose `reference` and `baseline` are those it names, where they are known, and `companion` that of
    the uncached trial which took turns with it.

    Raises RecordError where its config is not one of this zbench.
    """
    trial, reason = record.trial, record.reason
    method = method_of(trial.cache)
    known: dict[str, Any] = {
        "sweep": record.sweep,
        "trial_id": record.trial_id,
        "reference_id": record.reference_id,
        "baseline_id": record.baseline_id,
        "reference_weights": _other_weights(record, reference),
        "label": label,
        "family": method.family,
        "is_reference": record.is_reference,
        "is_baseline": record.is_baseline,
        "has_default_cache": method.has_defaults,
        "state": record.state,
        "source": record.source,
        "offload": trial.offload.mode,
        **_degrees(trial),
        "device": device_of(record.environment) if trial.hardware is None else None,
        "node": record.environment.get("node"),
        "ran_beside": len(record.beside),
        "reason_code": reason.code if reason else None,
        "reason": reason.message if reason else None,
        "hardware": None if trial.hardware is None else trial.hardware.title,
        "hardware_memory_gib": trial.memory_gib,
    }
    measured = record.valid_measurement
    if measured is None:
        return TrialFigures(**known)
    known |= _measured(measured, trial)
    known["cut_prompts"] = doubt.cut_prompts(record)
    compared, mixed = _compared(record, measured, reference, known["missing"])
    compared |= _faster(record, baseline, companion, compared["missing"])
    mixed += _against_baseline(record, reference, baseline, compared)
    figures = TrialFigures(**{**known, **compared})
    said = [*doubt.own_caveats(measured), *mixed]
    said += [] if figures.misfit is None else [figures.misfit]
    return replace(figures, caveats=tuple(said)) if said else figures


def _degrees(trial: Trial) -> dict[str, int]:
    """Devices and degrees, by field."""
    if trial.parallel == UNSHARDED:
        return {}
    dims = ParallelDims.of(trial.parallel)
    return {"devices": dims.devices, **{f"{name}_size": getattr(dims, name) for name in DEGREES}}


def _other_weights(record: Record, reference: Record | None) -> str | None:
    on_purpose = reference is not None and doubt.on_purpose(record, reference)
    return reference.trial.pipeline.weights if reference is not None and on_purpose else None


def _measured(measurement: Measurement, trial: Trial) -> dict[str, Any]:
    """What the trial's own rounds say, by field."""
    samples = latencies_s(measurement)
    is_load = (
        measurement.window.arrivals.kind != "sequential"
    )  # where requests wait for each other: no independent ones
    interval = None if measurement.projection or is_load or not samples else median_interval(samples)
    interval = interval or latency_ends(measurement)
    memory_bytes, memory_kind = peak_memory(measurement)
    memory = memory_ends(measurement, trial) or (None, None)
    sources, rounds = measurement.sources, measurement.requests
    return {
        **{field: REGISTRY[name].read(measurement) for field, name in FROM_REGISTRY.items()},
        "source": measurement.source,
        "latency_low_s": interval[0] if interval else None,
        "latency_high_s": interval[1] if interval else None,
        "arrivals": measurement.window.arrivals.kind,
        "image_format": measurement.effective.other.get("image_format"),
        "images": max((r.images for r in rounds), default=1),
        "peak_memory_bytes": memory_bytes,
        "memory_kind": memory_kind,
        "projected_memory_low": memory[0],
        "projected_memory_high": memory[1],
        "steps": None if any("steps" in p.own for p in trial.workload.prompts) else trial.pipeline.steps,
        "latency_source": sources.get("latency"),
        "memory_source": sources.get("memory"),
        "cached_steps_source": sources.get("cached_steps"),
        "quality_source": sources.get("quality"),
        "stop_reason": measurement.window.stop_reason,
        "rounds": sum(r.valid for r in rounds),
        "invalid_rounds": sum(not r.shows_steps for r in rounds),
        "power_limited": measurement.telemetry.power_limited,
        "disturbed_rounds": sum(bool(r.disturbances) for r in rounds),
        "missing": _shared(tuple(measurement.reasons.items())),
        **_cold(measurement, trial),
    }


def _cold(measurement: Measurement, trial: Trial) -> dict[str, Any]:
    """Beside the warm latency; nothing of a proxy's, nor of a server that was there before."""
    was_there = isinstance(trial.engine, ServedEngineConfig) and trial.engine.base_url is not None
    if measurement.projection is not None or was_there:
        return {}
    fields = {"load_s": "cold.load", "first_request_s": "cold.first_latency", "compile_s": "cold.compile"}
    known: dict[str, Any] = {field: REGISTRY[name].read(measurement) for field, name in fields.items()}
    return known | ({} if known["load_s"] is not None else {"launched_for": measurement.cold.launched_for})


@lru_cache(maxsize=1024)
def _shared(said: Reasons) -> Reasons:
    """One object for the reasons that thousands of trials give alike."""
    return said


def _compared(
    record: Record, measured: Measurement, reference: Record | None, missing: Reasons
) -> tuple[dict[str, Any], list[str]]:
    """What the trial's images are beside its reference's, by field, and what speaks against comparing them."""
    said = []
    other = doubt.other_content(record, reference, "quality reference")
    if reference is not None and reference.has_invalid_images:
        known = _without_quality(missing, REFERENCE_INVALID)
    elif other is None:
        of_reference = reference.valid_measurement if reference is not None else None
        known = {"missing": missing, **vars(likeness(measured, of_reference))}
        unlike = None if reference is None else doubt.unlike_its_reference(record, reference)
        said += [] if unlike is None else [unlike]
    else:
        said.append(other)
        known = _without_quality(missing, OTHER_CONTENT)
    return known, said


def _faster(record: Record, baseline: Record | None, companion: Record | None, missing: Reasons) -> dict[str, Any]:
    """Its speed-up by field, and why there is none."""
    if baseline is not None and baseline.has_invalid_images:
        missing = (*missing, ("speedup", BASELINE_INVALID))
    if baseline is not None and arrivals_of(baseline) != arrivals_of(record):
        return {"missing": (*missing, ("speedup", OTHER_ARRIVALS))}
    if doubt.other_content(record, baseline, "speed baseline") is not None:
        return {"missing": missing}
    if companion is not None and doubt.other_content(record, companion, "uncached trial") is not None:
        companion = None
    if companion is not None and _is_elsewhere(record, companion):
        companion = None
    found = speedup_of(record, baseline, companion)
    if found is None:
        return {"missing": missing}
    if found.way != "paired" and baseline is not None and _is_elsewhere(record, baseline):
        return {"missing": (*missing, ("speedup", OTHER_DEVICE))}
    low, high = found.speedup.interval or (None, None)
    known: dict[str, Any] = {
        "speedup": found.speedup.ratio,
        "speedup_low": low,
        "speedup_high": high,
        "speedup_way": found.way,
    }
    known["equal_workers"], known["equal_workers_told"] = measured_noise(record)
    ends = None if baseline is None else speedup_ends(found.speedup.ratio, record, baseline)
    known["projected_speedup_low"], known["projected_speedup_high"] = ends or (None, None)
    return {"missing": missing, **known}


def _is_elsewhere(record: Record, other: Record) -> bool:
    """Whether both were measured, on different kinds of devices. One cluster may have several; turns are taken on one
    machine, so that what is paired is of one kind always."""
    if record.trial.hardware is not None or other.trial.hardware is not None:
        return False
    return device_of(record.environment) != device_of(other.environment)


def _against_baseline(
    record: Record, reference: Record | None, baseline: Record | None, known: dict[str, Any]
) -> list[str]:
    """What speaks against its speed-up."""
    other = doubt.other_content(record, baseline, "speed baseline")
    if other is not None:
        return [other] if record.baseline_id != record.reference_id else []
    if baseline is not None and arrivals_of(baseline) != arrivals_of(record):
        return []
    idle = doubt.without_effect(record, reference, known.get("within_noise", False), known.get("speedup"))
    return [] if idle is None else [idle]


def arrivals_of(record: Record) -> dict[str, Any]:
    """How its requests came: where that differs, latencies are not compared."""
    return {name: getattr(record.trial.workload, name) for name in ("arrivals", *OF_KINDS)}


def _without_quality(missing: Reasons, why: str) -> dict[str, Any]:
    """Where the images were judged against a reference that is none of theirs, or has no images."""
    none: dict[str, Any] = {field: None for field, name in FROM_REGISTRY.items() if REGISTRY[name].of_likeness}
    return {**none, "missing": (*(pair for pair in missing if pair[0] != "quality"), ("quality", why))}
