"""For each stage of a measured trial: its seconds, the rate at which it computed, and the share of the ceiling.

Operations are counted from what ran, round by round. It refuses to guess: where what ran is not known there is no rate,
where the device's ceilings were not measured no share, and either comes with the reason. It formats nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zbench.analysis.metrics import REGISTRY, STAGES, latencies_s
from zbench.analysis.serving import serving_figures
from zbench.config import PipelineConfig
from zbench.errors import RecordError
from zbench.measurement import Effective, Measurement, Request
from zbench.methods.cache import method_of
from zbench.methods.dtypes import ceiling_name
from zbench.methods.parallel import ParallelDims
from zbench.record import Record
from zbench.stats import median
from zbench.trial import Trial, preset_geometry
from zbench.zimage.flops import Flops, step_flops, text_encoder_flops, vae_decode_flops
from zbench.zimage.geometry import Geometry

NOT_MEASURED = "ceilings were not measured when it ran (zbench doctor --measure measures them)"


TOLD = "a server told its seconds, and not what it computed"
"""Why a stage has no rate that an engine's server timed."""


@dataclass(frozen=True)
class CeilingRates:
    """What the device was measured to reach, FLOP/s."""

    gemm: float
    attention: float

    def seconds(self, flops: Flops) -> float:
        """The least that `flops` would take."""
        return flops.gemm / self.gemm + flops.attention / self.attention


@dataclass(frozen=True)
class StageFigures:
    """One stage over the valid rounds: medians of each round's figure."""

    seconds: float
    tflops: float | None = None
    """FLOPs over seconds, 1e12/s."""
    share: float | None = None
    """Of the ceiling: the seconds that its FLOPs take at the measured rates, over its seconds. Can exceed 1."""
    why_no_rate: str | None = None
    why_no_share: str | None = None


def stage_figures(record: Record) -> dict[str, StageFigures]:
    """Figures by stage, those of STAGES that were timed; empty for a trial that was not measured here."""
    measurement = record.valid_measurement
    if measurement is None or measurement.projection is not None:
        return {}
    counter = _Counter.of(record, measurement)
    rates = ceiling_rates(record.environment.get("ceilings"), measurement.effective)
    devices = ParallelDims.of(counter.trial.parallel).devices if isinstance(counter, _Counter) else 1
    if devices > 1 and isinstance(rates, CeilingRates):
        rates = "the ceilings are one device's, and it ran on several"
    figures = {stage: StageFigures(s, why_no_rate=TOLD) for stage, s in told_stages_s(measurement).items()}
    for stage in STAGES:
        timed = [(r, s) for r in measurement.requests if r.valid and (s := r.stages_s.get(stage, 0.0)) > 0]
        if timed:
            figures[stage] = _figures(timed, counter if isinstance(counter, str) else counter.of_stage(stage), rates)
    return figures


def told_stages_s(measurement: Measurement) -> dict[str, float]:
    """Seconds of each stage that a server told of one untimed request; empty where the timed ones have their own."""
    server = measurement.effective.server
    if server is None or any(any(r.stages_s.values()) for r in measurement.requests):
        return {}
    return {stage: server.stages_s[stage] for stage in STAGES if server.stages_s.get(stage)}


def ceiling_rates(ceilings: Mapping[str, Any] | None, effective: Effective) -> CeilingRates | str:
    """The rates that bound what took effect, from a record's `ceilings`; in words, why there are none."""
    if not ceilings:
        return NOT_MEASURED
    device, dtype = str(effective.device), str(effective.dtype)
    if device.partition(":")[0] != ceilings.get("kind"):
        return f"the ceilings are those of {ceilings.get('device')}, and it ran on {device}"
    known = ceilings.get("figures") or {}
    name = ceiling_name(dtype)
    gemm, attention = (known.get(f"{kind}_{name}_tflops") for kind in ("gemm", "attention"))
    if not gemm or not attention:
        return f"the ceilings have none for {dtype}"
    return CeilingRates(gemm * 1e12, attention * 1e12)


def _figures(
    timed: list[tuple[Request, float]], count: Callable[[Request], Flops | None] | str, rates: CeilingRates | str
) -> StageFigures:
    seconds = median([s for _, s in timed])
    if isinstance(count, str):
        return StageFigures(seconds, why_no_rate=count)
    counted = [(flops, s) for r, s in timed if (flops := count(r)) is not None]
    if len(counted) < len(timed):
        return StageFigures(seconds, why_no_rate="the record does not say how long the prompts were")
    tflops = median([flops.total / s for flops, s in counted]) / 1e12
    if isinstance(rates, str):
        return StageFigures(seconds, tflops, why_no_share=rates)
    return StageFigures(seconds, tflops, median([rates.seconds(flops) / s for flops, s in counted]))


@dataclass(frozen=True)
class _Counter:
    """Counts what the stages of a trial's rounds computed."""

    trial: Trial
    geometry: Geometry

    @classmethod
    def of(cls, record: Record, measurement: Measurement) -> "_Counter | str":
        """In words, why it cannot count."""
        try:
            return cls(record.trial, _recorded_geometry(record.trial.pipeline, measurement.effective))
        except (RecordError, ValueError) as error:
            return str(error)

    def of_stage(self, stage: str) -> Callable[[Request], Flops | None] | str:
        """Counts a round; in words, why none can be counted."""
        pipeline = self.trial.pipeline
        if self.trial.workload.mixes:
            return "its prompts have sizes or steps of their own"
        if stage == "text_encode":
            return self._text_encode
        if stage == "denoise":
            if self._skipped_blocks is None:
                return f"what a step that {self.trial.cache.method} skips computes is not known"
            return self._denoise
        if pipeline.vae is not None:
            return "pipeline.vae is not the pipeline's own, and its layers are not counted"
        return "tiles overlap, and what they compute twice is not counted" if pipeline.vae_tiling else self._decode

    def _text_encode(self, _: Request) -> Flops:
        """Every prompt is padded, and comes with a negative one under guidance."""
        pipeline = self.trial.pipeline
        flops = text_encoder_flops(self.geometry, pipeline.max_sequence_length) * pipeline.encoded_prompts
        return flops * self.trial.parallel.dp_size

    def _denoise(self, made: Request) -> Flops | None:
        """The samples of a forward are padded to the longest of them. A skipped step runs some of the main blocks."""
        if not made.text_tokens:
            return None
        pipeline = self.trial.pipeline
        image_tokens, text_tokens = self.geometry.image_tokens(pipeline.height, pipeline.width), max(made.text_tokens)
        steps = len(made.steps_s) or pipeline.steps
        skipped = len({step for step in made.cached_steps if 0 <= step < steps})
        full = step_flops(self.geometry, image_tokens, text_tokens) * (steps - skipped)
        if skipped:
            full += step_flops(self.geometry, image_tokens, text_tokens, self._skipped_blocks) * skipped
        side_by_side = self.trial.parallel.dp_size  # a rank knows its own samples alone
        return full * max(len(made.text_tokens), pipeline.samples * side_by_side if side_by_side > 1 else 0)

    @property
    def _skipped_blocks(self) -> int | None:
        return method_of(self.trial.cache).cached_blocks(self.geometry.transformer.n_layers)

    def _decode(self, made: Request) -> Flops:
        pipeline = self.trial.pipeline
        return vae_decode_flops(self.geometry, pipeline.height, pipeline.width) * made.images


def _recorded_geometry(pipeline: PipelineConfig, effective: Effective) -> Geometry:
    """How large the model was, from the record alone: no folder that a record names is read.

    Raises ValueError where the record does not say.
    """
    if effective.geometry is not None:
        return effective.geometry
    if effective.weights == "folder":
        said = "the record does not say how large the model is; measure it again"
        raise ValueError(f"pipeline.weights={pipeline.weights}: {said}")
    return preset_geometry(pipeline.preset)


VISIBLE = 0.002  # of the whole; less than that is no stage worth showing
WHOLE = (*STAGES, "offload_transfer")


def stage_seconds(measurement: Measurement) -> dict[str, float]:
    """Median seconds of each stage, and `other`: what of the median latency belongs to none.

    Of a projection the denoising is what its rounds take beyond everything else that was projected.
    """
    samples = latencies_s(measurement)
    if not samples:
        return {}
    load = serving_figures(measurement)
    total = median(load.services_s if load is not None and load.services_s else samples)  # without the waiting
    if measurement.projection is not None:
        projected = measurement.projection.stages_s
        stages = {name: projected[name] for name in WHOLE if projected.get(name)}
        stages["denoise"] = max(0.0, total - sum(projected.values()))
    else:
        timed = {stage: REGISTRY[f"stages.{stage}.median"].read(measurement) for stage in STAGES}
        stages = told_stages_s(measurement) | {stage: s for stage, s in timed.items() if s is not None}
    other = total - sum(stages.values())
    return {**stages, "other": other} if other > VISIBLE * total else stages
