"""What was measured and a projection can be held against: records of the full-size pipeline, ceilings, single forwards.

It refuses what ran on a device without a profile, and what was projected itself.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from zbench.analysis.metrics import peak_memory
from zbench.analysis.scaling import forward_s
from zbench.composition import expand, profile_patterns
from zbench.config import ComputeConfig, Config, ParallelConfig
from zbench.decode import plain
from zbench.errors import RecordError, one_line
from zbench.hardware import traffic
from zbench.hardware.detect import profile_of
from zbench.hardware.footprint import TEXT_TOKENS
from zbench.hardware.published import PublishedFigure
from zbench.measurement import Measurement
from zbench.methods import dtypes, fast, offload, quantization
from zbench.methods.parallel import ParallelDims
from zbench.record import Record
from zbench.stats import median_interval
from zbench.trial import Trial, preset_geometry

PRESET = "zimage_turbo"
ENGINE = "reference"
"""What a projection stands for; a server's software is another."""
PLAIN = ("eager", "second host", "diffusers' forward", "cuDNN attention")
"""What of a published setting changes nothing that is projected."""
KNOWN_TO = 0.05
"""Half of the 95 % interval of a median latency over it, at most. At 512x512 the host decides, eager: 0.45 s on a quiet
one, 0.63 and 7 % of doubt on another."""
DEGREES = {"tp": "tp_size", "ulysses": "ulysses_size", "ring": "ring_size"}


@dataclass(frozen=True)
class Observation:
    """One trial as it was measured, medians in seconds."""

    hardware: str  # its profile
    setting: str
    trial: Trial
    text_tokens: int
    forward_s: float | None
    latency_s: float | None = None
    stages_s: dict[str, float] = field(default_factory=dict)
    cached_steps: int = 0
    """Skipped in an image."""
    peak_bytes: int | None = None
    """Of the device's memory."""
    moved_bytes: int | None = None
    """Copied to the device for an image, where that was counted."""
    came_whole: bool = False
    """Whether its text encoder waited for all of itself, as it did in records of before its layers came one ahead."""

    @property
    def dims(self) -> ParallelDims:
        return ParallelDims.of(self.trial.parallel)

    @property
    def topology(self) -> str:
        """How one image is spread, without the copies beside it; empty on one device."""
        return " ".join(replace(self.dims, dp=1).labels)

    @property
    def offload(self) -> str:
        return offload.label(self.trial.offload) or ""

    @property
    def software(self) -> str:
        """Which part of the fast path it is of that no other record shows: `fast`, `fp8`, or none of it."""
        compute = self.trial.compute
        return "fp8" if compute.quantization != quantization.NONE else "fast" if fast.asked(compute) else ""

    @property
    def modelled(self) -> bool:
        """Whether the model knows all that it did: a LoRA beside the layers, or other weights, it does not."""
        pipeline = self.trial.pipeline
        return pipeline.lora is None or pipeline.lora_fused


@dataclass(frozen=True)
class Ceiling:
    """Rates of one kind of device, as `zbench doctor --measure` found them: TFLOP/s and GB/s."""

    hardware: str
    gemm: float
    attention: float
    copy: float


def of_records(records: Iterable[Record], where: str = "") -> Iterator[Observation]:
    """Of each record whose forwards were measured on a GPU that has a profile; the others are passed over.

    So is what was measured on too busy a host to be known to `KNOWN_TO`.
    """
    patterns = profile_patterns()
    for record in records:
        measured, devices = record.valid_measurement, record.environment.get("devices") or ()
        name = profile_of(devices[0]["name"], patterns) if devices else None
        if measured is None or measured.projection is not None or name is None or name == "cpu":
            continue
        if record.trial.pipeline.preset != PRESET or record.trial.hardware is not None:
            continue
        if record.trial.engine.name != ENGINE or measured.effective.device != "cuda" or record.trial.workload.is_load:
            continue
        if not _is_steady([request.latency_s for request in measured.requests if request.valid]):
            continue
        yield _observation(record, measured, name, where)


def _is_steady(latencies_s: Sequence[float]) -> bool:
    """Whether their median is known; too few to say so are taken at their word."""
    interval = median_interval(latencies_s) if latencies_s else None
    return interval is None or (interval[1] - interval[0]) / 2 <= KNOWN_TO * median(latencies_s)


def _observation(record: Record, measured: Measurement, name: str, where: str) -> Observation:
    valid = [r for r in measured.requests if r.valid]
    peak, kind = peak_memory(measured)
    staged = [r.stages_s for r in valid if r.stages_s]
    moved = measured.effective.offload_moved_bytes
    whole = came_whole(record.trial, moved)
    stages = {key: median(each.get(key, 0.0) for each in staged) for key in staged[0]} if staged else {}
    return Observation(
        hardware=name,
        setting=f"{where}{setting(record)}",
        trial=record.trial,
        text_tokens=text_tokens(measured),
        forward_s=forward_s(measured),
        latency_s=median(r.latency_s for r in valid) if valid and not whole else None,
        stages_s=stages,
        peak_bytes=peak if kind == "device" else None,
        moved_bytes=sum(moved.values()) if moved else None,
        came_whole=whole,
        cached_steps=round(median(len(r.cached_steps) for r in valid)) if valid else 0,
    )


def came_whole(trial: Trial, moved: Mapping[str, int] | None) -> bool:
    """Whether the text encoder came to the device with its table of tokens, which `moved`, the record's
    `effective.offload_moved_bytes`, then has in it: 742 MiB more than its layers. No layer came one ahead then.

    Such a call took longer than the same one takes now, so no projection is held against it. Its forwards are what they
    are, and what its stages took longer for their copies says what the host link gives.
    """
    if not offload.BY_NAME[trial.offload.mode].streams_text:
        return False
    held = traffic.weights(preset_geometry(PRESET), dtypes.dtype_on("cuda", trial.compute.dtype).nbytes, ParallelDims())
    return moved is None or moved.get("text_encoder", 0) > held.text_encoder - held.text_encoder_table / 2


def of_published(figures: Iterable[PublishedFigure]) -> Iterator[Observation]:
    """Of each figure of one forward that was measured with zbench's own engine at its defaults."""
    for figure in figures:
        trial = published_trial(figure)
        if trial is not None and figure.step_s is not None and figure.profile is not None:
            yield Observation(figure.profile, f"published: {figure.id}", trial, TEXT_TOKENS, figure.step_s)


def published_trial(figure: PublishedFigure) -> Trial | None:
    """The trial behind a row of `published.yaml`, read from its setting (`ulysses 2, compiled blocks`); else None."""
    if figure.kind != "measured" or not figure.id.startswith("zbench-"):
        return None
    degrees: dict[str, Any] = {}
    compiled = False
    for part in (part.strip() for part in figure.setting.split(",")):
        word, _, number = part.partition(" ")
        if word in DEGREES and number.isdigit():
            degrees[DEGREES[word]] = int(number)
        elif part == "compiled blocks":
            compiled = True
        elif part not in PLAIN:
            return None
    trial = Trial.from_config(composed(figure.profile or ""), projected=True)
    compute = ComputeConfig(device="cuda", compile=compiled)
    return replace(trial, compute=compute, parallel=ParallelConfig(**degrees))


def read_ceilings(paths: Sequence[Path]) -> list[Ceiling]:
    """What these files of `zbench doctor --measure` say. Raises RecordError for one that is none."""
    patterns, found = profile_patterns(), []
    for path in paths:
        try:
            told: Any = plain(path.read_bytes())
            figures, name = told["figures"], profile_of(told["device"], patterns)
            rates = [float(figures[key]) for key in ("gemm_bf16_tflops", "attention_bf16_tflops", "copy_gb_s")]
        except (ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise RecordError(f"{path}: no ceilings of a GPU ({one_line(error)})") from error
        if name is not None:
            found.append(Ceiling(name, *rates))
    return found


@cache
def composed(profile: str) -> Config:
    """The full-size pipeline at its defaults, on a profile of `conf/hardware`."""
    chosen = [f"pipeline={PRESET}", f"hardware={profile}", "compute.device=cuda"]
    return expand(chosen, lambda group, _: group, grids=False).jobs[0].config


def text_tokens(measured: Measurement) -> int:
    """Of the longest sample of its forwards, the median round's; TEXT_TOKENS where it is not recorded."""
    known = sorted(max(r.text_tokens) for r in measured.requests if r.valid and r.text_tokens)
    return known[len(known) // 2] if known else TEXT_TOKENS


def setting(record: Record) -> str:
    """Its label, and its size and samples where they are not the commonest."""
    pipeline = record.trial.pipeline
    size = "" if (pipeline.width, pipeline.height) == (1024, 1024) else f" {pipeline.width}×{pipeline.height}"
    samples = "" if pipeline.samples == 1 else f" {pipeline.samples} samples"
    return f"{record.label}{size}{samples}"
