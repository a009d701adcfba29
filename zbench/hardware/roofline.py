"""What a trial of the full-size pipeline would take on hardware that is not here; it measures nothing and
says of every figure what it rests on, and where it lies nine times in ten.

The seconds are `hardware.cost`'s, in parts. Each part may be off by what the profile's `efficiency.spread` says, so a
figure is a range. How far off it was on measured hardware: `python -m zbench.hardware.calibrate reports`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from zbench.config import HardwareConfig
from zbench.hardware import footprint
from zbench.hardware.cost import Cost, DeviceRates, host_link
from zbench.hardware.footprint import TEXT_TOKENS
from zbench.hardware.seconds import Estimate, Parts
from zbench.measurement import ProjectedRound, Projection, Request
from zbench.methods import fast, lora, offload, quantization
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial
from zbench.zimage.geometry import Geometry

STACKS = {
    "eager": "eager: PyTorch and diffusers, kernel by kernel",
    "compiled": "compiled: the same with its blocks under torch.compile",
    "graph": "graph: compiled, and a forward as one CUDA graph",
    "fast": "fast: the same model by zbench's own fast path, compute=fast",
}
"""What software reaches is part of a projection: the stacks that zbench runs, by `stack_of`."""


class Expectation(NamedTuple):
    """What `zbench plan` says of a trial before it runs."""

    latency: Estimate
    """Seconds of an image."""
    peak_bytes: int
    """Device memory; on a CPU, host memory of the tensors."""
    peak_ends: tuple[float, float]
    """Within which it lies nine times in ten."""

    @property
    def latency_s(self) -> float:
        return self.latency.point


def stack_of(trial: Trial) -> str:
    """The software that a projection of it stands for, a key of STACKS."""
    if fast.is_fast(trial.compute, trial.parallel):
        return "fast"
    return "graph" if trial.graphs == "all" else "compiled" if trial.compute.compile else "eager"


def project(trial: Trial, geometry: Geometry, rounds: Sequence[Request], text_tokens: int = TEXT_TOKENS) -> Projection:
    """The full-size `trial` on `trial.hardware`, round by round as the proxy's `rounds` skipped steps.

    `geometry` is the full-size pipeline's. Raises ConfigError where the profile lacks a figure the trial
    needs.
    """
    if trial.hardware is None:
        raise ValueError("a trial without hardware cannot be projected")
    cost = Cost(trial, geometry, trial.hardware, text_tokens)
    computed, cached = cost.step(geometry.transformer.n_layers), cost.step(cost.cached_blocks)
    stages, steps, spread = cost.stages(), trial.pipeline.steps, trial.hardware.efficiency.spread
    outside = sum(stages.values(), Parts())

    def image(round_: Request) -> Parts:
        skipped = len({step for step in round_.cached_steps if 0 <= step < steps})
        return outside + computed * (steps - skipped) + cached * skipped

    def projected(round_: Request) -> ProjectedRound:
        latency = image(round_).range(spread)
        return ProjectedRound(round_.prompt_id, round_.seed, latency.point, latency.low, latency.high)

    peak = cost.peak_bytes()
    return Projection(
        rounds=[projected(r) for r in rounds],
        stages_s={name: parts.total_s for name, parts in stages.items()},
        computed_step_s=computed.total_s,
        cached_step_s=cached.total_s,
        peak_device_bytes=peak,
        floor_s=floor_s(trial, geometry, trial.hardware, text_tokens),
        assumptions=_assumptions(trial, trial.hardware, peak, text_tokens),
        image_parts_s=dict(image(rounds[0]).seconds) if rounds else {},
    )


def expect(trial: Trial, geometry: Geometry, hardware: HardwareConfig, cached_steps: int = 0) -> Expectation:
    """Latency of an image and peak memory, for `zbench plan`. `cached_steps` is how many of its steps are
    skipped, where that is known beforehand (a fixed mask); a threshold's skips are not, and 0 is the slowest
    case."""
    cost = Cost(trial, geometry, hardware, TEXT_TOKENS)
    steps = trial.pipeline.steps
    cached = min(cached_steps, steps)
    denoise = cost.step(geometry.transformer.n_layers) * (steps - cached) + cost.step(cost.cached_blocks) * cached
    image = sum(cost.stages().values(), Parts()) + denoise
    peak, off = cost.peak_bytes(), 1 + hardware.efficiency.spread.memory
    return Expectation(image.range(hardware.efficiency.spread), peak, (peak / off, peak * off))


def floor_s(trial: Trial, geometry: Geometry, hardware: HardwareConfig, text_tokens: int = TEXT_TOKENS) -> float:
    """The least time physics allows an image in which every step is computed: datasheet peaks, every
    activation kept on chip, no gap, no exchange, no copy. Skipping steps is the only way below it."""
    ideal = DeviceRates.of(hardware, compute=trial.compute, ideal=True)
    cost = Cost(trial, geometry, hardware, text_tokens, ideal)
    text_s = cost.text_encode().seconds["text"]
    steps_s = trial.pipeline.steps * cost.compute(geometry.transformer.n_layers).total_s
    return text_s + steps_s + cost.decode().total_s


def _assumptions(trial: Trial, hardware: HardwareConfig, peak_bytes: int, text_tokens: int) -> list[str]:
    gib, context = peak_bytes / footprint.GIB, footprint.CONTEXT_BYTES / footprint.GIB
    lines = [
        f"{hardware.title}: {hardware.datasheet}",
        f"software: {STACKS[stack_of(trial)]}",
        f"efficiency: {hardware.efficiency.source}",
        f"{text_tokens} prompt tokens, padded to {footprint.encoded_tokens(trial, text_tokens)} for the text encoder",
        "attention at the rate of cuDNN's kernel, whatever compute.attention_backend says",
        f"memory: allocator reserve {footprint.RESERVE:.0%}, CUDA context {context:g} GiB",
        "which steps are skipped was measured on the tiny pipeline, not on this one",
    ]
    if trial.pipeline.lora is not None:
        lines.append(lora.PROJECTED)
    if trial.compute.quantization != quantization.NONE:
        lines.append(quantization.PROJECTED)
    ranks = ParallelDims.of(trial.parallel).ranks
    if (unmeasured := fast.projected(trial.compute, ranks)) is not None:
        lines.append(unmeasured)
    if ranks > 1 and trial.graphs != "all":
        lines.append("sharded without compute=graph: the host's speed decides; those of H200 differed by 40 %")
    if offload.BY_NAME[trial.offload.mode].waiting:
        share = host_link(trial, hardware)
        lines.append(f"offload copies at {share:.0%} of the host link, as on an H100")
    if footprint.fits(peak_bytes, hardware) is False:
        lines.append(f"does not fit: {gib:.1f} GiB at the peak, {hardware.usable_gib:g} GiB on the device")
    return lines
