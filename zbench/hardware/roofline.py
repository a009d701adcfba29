"""What a trial of the full-size pipeline would take on hardware that is not here; it measures nothing and
says of every figure what it rests on.

A stage takes its FLOPs over the matmul rate that the profile's `efficiency` says is reached, plus the bytes
its activations move over the memory bandwidth, plus what neither explains (`step_gap_s`), plus what devices
exchange and what offloading copies. Nothing is taken to overlap, but for group offload with a stream.
Of several devices the one with the largest share counts; replicas (`dp`) change no latency, on a CPU they share its
cores as all ranks do.

How far off it is, in one forward at 1024x1024 in bf16 (the tests hold it to this):

| | measured | projected |
|---|---|---|
| H100 compiled / eager | 102 / 156 ms | 102.0 / 156.0 ms (fitted) |
| H200 compiled / eager | 97.8 / 149.9 ms | 97.3 / 149.9 ms (eager fitted) |
| H100 compiled image, 0 / 3 / 5 steps skipped | 0.97 / 0.72 / 0.52 s | 0.97 / 0.69 / 0.51 s (first fitted) |
| 2 x H200 compiled: ulysses 2, tp 2 | 57.6 / 62.4 ms | 62.2 / 63.4 ms |
| 2 x H200 as one graph: gather 2, ulysses 2, tp 2 | 50.6 / 54.0 / 57.9 ms | 54.7 / 54.7 / 62.9 ms |
| 4 x H200 as one graph: gather 4 | 34.3 ms | 33.8 ms |
| 2 x H200 eager: ulysses 2, ring 2, tp 2 | 136.8 / 118.7 / 220 ms | 134.4 / 109.2 / 188.2 ms (fitted, `host`) |

Sharded and kernel by kernel, the host may be what takes longest (`host`); its CPU then counts, and this model does not
know it: compiled Ulysses took 57.6 ms on one machine and 81 ms on another.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zbench.config import ComputeConfig, HardwareConfig
from zbench.errors import ConfigError
from zbench.hardware import footprint, host, traffic
from zbench.hardware.footprint import TEXT_TOKENS
from zbench.measurement import ProjectedRound, Projection, Request
from zbench.methods import dtypes, lora, offload
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial
from zbench.zimage import flops
from zbench.zimage.geometry import Geometry

GAP_BLOCKS = 34
"""Blocks of the forward that `step_gap_s` is given for: Z-Image-Turbo's 30 main ones and 4 of its refiners."""


class Expectation(NamedTuple):
    """What `zbench plan` says of a trial before it runs."""

    latency_s: float
    peak_bytes: int
    """Device memory; on a CPU, host memory of the tensors."""


@dataclass(frozen=True)
class DeviceRates:
    """How fast one device works."""

    dtype_bytes: int
    gemm: float  # FLOP/s
    attention: float  # FLOP/s
    vae: float  # FLOP/s
    bandwidth: float  # bytes/s
    activation_passes: float
    gap_s: float  # a forward of GAP_BLOCKS

    @classmethod
    def of(cls, hardware: HardwareConfig, *, dtype: str, compiled: bool, ideal: bool = False) -> "DeviceRates":
        """Rates reached, or with `ideal` those of the datasheet. ConfigError names the figure that is
        missing."""
        e, kind = hardware.efficiency, dtypes.BY_NAME[dtype]
        if kind.instead is not None and operator.attrgetter(kind.peak_key)(hardware) is None:
            problem = f"hardware={hardware.name} has no {dtype} rate; use {kind.instead}"
            raise ConfigError("compute.dtype", dtype, problem)
        peak, dtype_bytes = _figure(hardware, kind.peak_key) * 1e12, kind.nbytes
        passes = e.activation_passes if compiled else e.eager_activation_passes
        needs_bandwidth = hardware.nvml_name is not None or passes > 0
        bandwidth = _figure(hardware, "memory_bandwidth_gb_s") * 1e9 if needs_bandwidth else math.inf
        if ideal:
            return cls(dtype_bytes, peak, peak, peak, bandwidth, activation_passes=0.0, gap_s=0.0)
        gap_s = e.step_gap_s if compiled else e.eager_step_gap_s
        rates = (peak * e.gemm, peak * e.attention, peak * e.vae)
        return cls(dtype_bytes, *rates, bandwidth * e.bandwidth, passes, gap_s)


def project(trial: Trial, geometry: Geometry, rounds: Sequence[Request], text_tokens: int = TEXT_TOKENS) -> Projection:
    """The full-size `trial` on `trial.hardware`, round by round as the proxy's `rounds` skipped steps.

    `geometry` is the full-size pipeline's. Raises ConfigError where the profile lacks a figure the trial
    needs.
    """
    if trial.hardware is None:
        raise ValueError("a trial without hardware cannot be projected")
    cost = _Cost(trial, geometry, trial.hardware, text_tokens)
    computed_step_s, cached_step_s = (
        cost.step_s(geometry.transformer.n_layers),
        cost.step_s(cost.cached_blocks),
    )
    stages_s, steps = cost.stages_s(), trial.pipeline.steps

    def latency_s(round_: Request) -> float:
        cached = len({step for step in round_.cached_steps if 0 <= step < steps})
        return sum(stages_s.values()) + (steps - cached) * computed_step_s + cached * cached_step_s

    peak = cost.peak_bytes()
    return Projection(
        rounds=[ProjectedRound(r.prompt_id, r.seed, latency_s(r)) for r in rounds],
        stages_s=stages_s,
        computed_step_s=computed_step_s,
        cached_step_s=cached_step_s,
        peak_device_bytes=peak,
        floor_s=floor_s(trial, geometry, trial.hardware, text_tokens),
        assumptions=_assumptions(trial, trial.hardware, peak, text_tokens),
    )


def expect(trial: Trial, geometry: Geometry, hardware: HardwareConfig, cached_steps: int = 0) -> Expectation:
    """Latency of an image and peak memory, for `zbench plan`. `cached_steps` is how many of its steps are
    skipped, where that is known beforehand (a fixed mask); a threshold's skips are not, and 0 is the slowest
    case."""
    cost = _Cost(trial, geometry, hardware, TEXT_TOKENS)
    steps = trial.pipeline.steps
    cached = min(cached_steps, steps)
    denoise_s = (steps - cached) * cost.step_s(geometry.transformer.n_layers) + cached * cost.step_s(cost.cached_blocks)
    return Expectation(sum(cost.stages_s().values()) + denoise_s, cost.peak_bytes())


def floor_s(trial: Trial, geometry: Geometry, hardware: HardwareConfig, text_tokens: int = TEXT_TOKENS) -> float:
    """The least time physics allows an image in which every step is computed: datasheet peaks, every
    activation kept on chip, no gap, no exchange, no copy. Skipping steps is the only way below it."""
    ideal = DeviceRates.of(hardware, dtype=_dtype(trial.compute, hardware), compiled=True, ideal=True)
    cost = _Cost(trial, geometry, hardware, text_tokens, ideal)
    steps = trial.pipeline.steps
    return cost.text_encode_s() + steps * cost.compute_s(geometry.transformer.n_layers) + cost.decode_s()


class _Cost:
    """Seconds of every part of an image of one trial on one kind of device."""

    def __init__(
        self,
        trial: Trial,
        geometry: Geometry,
        hardware: HardwareConfig,
        text_tokens: int,
        rates: DeviceRates | None = None,
    ) -> None:
        dtype = _dtype(trial.compute, hardware)
        self.trial, self.geometry, self.hardware, self.text_tokens = trial, geometry, hardware, text_tokens
        self.rates = rates or DeviceRates.of(hardware, dtype=dtype, compiled=trial.compute.compile)
        # compile touches the transformer alone: text encoder and VAE run eager.
        self.eager_gap_s = 0.0 if rates else hardware.efficiency.eager_step_gap_s
        self.dims = ParallelDims.of(trial.parallel)
        self.weights = footprint.trial_weights(trial, geometry, self.rates.dtype_bytes)
        self.turns = self.dims.devices if hardware.nvml_name is None else 1  # ranks on a CPU share its cores
        self.image_tokens = geometry.image_tokens(trial.pipeline.height, trial.pipeline.width)

    @property
    def cached_blocks(self) -> int:
        """Main blocks a cached step computes; all of them where that is not known."""
        n_layers = self.geometry.transformer.n_layers
        blocks = method_of(self.trial.cache).cached_blocks(n_layers)
        return n_layers if blocks is None else blocks

    def stages_s(self) -> dict[str, float]:
        """Everything of an image but its steps; `overhead` is what no stage explains."""
        return {
            "text_encode": self.text_encode_s(),
            "decode": self.decode_s(),
            "offload_transfer": self._host_s(traffic.image_transfer_bytes(self.trial.offload, self.weights)),
            "overhead": self.hardware.efficiency.image_overhead_s,
        }

    def text_encode_s(self) -> float:
        """One prompt, and the empty one with guidance, split over the devices of an image where the trial says so.

        A layer is given the gap of an eager transformer block. Split, it has two all-reduces of its hidden state.
        """
        encoder, tokens = self.geometry.text_encoder, self.trial.pipeline.max_sequence_length
        over = self.dims.ranks if self.trial.parallel.text_encoder == "tp" else 1
        run = flops.text_encoder_flops(self.geometry, tokens)
        gap_s = self.eager_gap_s * encoder.n_layers / GAP_BLOCKS
        gemm_s = max(run.gemm / over / self.rates.gemm, self.weights.text_encoder / self.rates.bandwidth)
        reduced = 2 * encoder.n_layers * 2 * (over - 1) / over * tokens * encoder.hidden_size * self.rates.dtype_bytes
        prompt_s = gemm_s + run.attention / over / self.rates.attention + gap_s
        return self.trial.pipeline.encoded_prompts * (self.turns * prompt_s + self._exchange_s(reduced))

    def decode_s(self) -> float:
        """The VAE's decode, its attention at the rate of its convolutions, where it was measured.

        Devices that share it have a part of its rows; what they exchange at their borders is not counted.
        """
        pipeline = self.trial.pipeline
        run = flops.vae_decode_flops(self.geometry, pipeline.height, pipeline.width)
        part = footprint.decode_share(self.trial, self.geometry)
        return self.turns * part * self.trial.pipeline.images * run.total / self.rates.vae

    def compute_s(self, blocks: int) -> float:
        """Arithmetic of a forward through `blocks` main blocks on the device with the largest share, and its gaps."""
        samples = self.dims.samples(self.trial.pipeline.samples)
        run = flops.step_flops(self.geometry, self.image_tokens, self.text_tokens, blocks) * samples
        n_layers, heads = self.geometry.transformer.n_layers, self.geometry.transformer.n_heads
        read_s = self.weights.step(blocks, n_layers) / self.rates.bandwidth
        gemm_s = max(run.gemm * self._token_share / self.dims.tp / self.rates.gemm, read_s)
        attended = run.attention * self.dims.attention_share(self._tokens, heads)
        gap_s = self.rates.gap_s * (blocks + 2 * self.geometry.transformer.n_refiner_layers) / GAP_BLOCKS
        return self.turns * (gemm_s + attended / self.rates.attention + gap_s)

    def step_s(self, blocks: int) -> float:
        """A step: arithmetic, activations (which tensor parallelism does not split), exchange, offload."""
        trial, t = self.trial, self.geometry.transformer
        samples = self.dims.samples(trial.pipeline.samples)
        tokens = traffic.block_tokens(self.geometry, self.image_tokens, self.text_tokens, blocks) * samples
        hidden_bytes = float(tokens * t.dim * self.rates.dtype_bytes)
        moved = self.turns * self.rates.activation_passes * hidden_bytes * self._token_share
        output_bytes = trial.pipeline.samples * self.image_tokens * t.patch_dim * self.rates.dtype_bytes
        sent = hidden_bytes * self.dims.sent_share + output_bytes * self.dims.output_share
        busy_s = self.compute_s(blocks) + moved / self.rates.bandwidth + self._exchange_s(sent)
        if self.hardware.nvml_name is not None:
            busy_s = max(busy_s, host.start_s(self.dims, trial.compute, blocks + 2 * t.n_refiner_layers))
        touched = self.weights.step(blocks, t.n_layers)
        copy_s = self._host_s(traffic.step_transfer_bytes(trial.offload, touched))
        return max(busy_s, copy_s) if offload.overlaps(trial.offload) else busy_s + copy_s

    @property
    def _tokens(self) -> int:
        """Of the main blocks' sequence."""
        return flops.padded_tokens(self.image_tokens) + flops.padded_tokens(self.text_tokens)

    @property
    def _token_share(self) -> float:
        """The largest part of a sequence that one device has; the refiners' sequences are taken to be shared alike."""
        return self.dims.token_share(self._tokens)

    def peak_bytes(self) -> int:
        arguments = (self.trial, self.geometry, self.rates.dtype_bytes, self.text_tokens)
        on_cpu = self.hardware.nvml_name is None
        return footprint.peak_allocated_bytes(*arguments) if on_cpu else footprint.peak_device_bytes(*arguments)

    def _exchange_s(self, sent_bytes: float) -> float:
        """Nothing on a CPU, whose ranks share its memory."""
        if not sent_bytes or self.hardware.nvml_name is None:
            return 0.0
        return sent_bytes / (_figure(self.hardware, "interconnect_gb_s") * 1e9 * self.hardware.efficiency.interconnect)

    def _host_s(self, copied_bytes: float) -> float:
        """Nothing on a CPU, whose memory is the host's."""
        if not copied_bytes or self.hardware.nvml_name is None:
            return 0.0
        return copied_bytes / (_figure(self.hardware, "host_link_gb_s") * 1e9 * _host_link(self.trial, self.hardware))


def _dtype(compute: ComputeConfig, hardware: HardwareConfig) -> str:
    """What the arithmetic is done in; ConfigError where it is not done on `hardware` at all."""
    if compute.device == "cpu" and hardware.nvml_name is not None:
        problem = f"hardware={hardware.name} describes a GPU; name hardware=cpu or leave compute.device out"
        raise ConfigError("compute.device", compute.device, problem)
    return dtypes.dtype_on("cpu" if hardware.nvml_name is None else "cuda", compute.dtype).name


def _host_link(trial: Trial, hardware: HardwareConfig) -> float:
    """Share of the host link's bandwidth that copies reach."""
    pinned, pageable = hardware.efficiency.host_link, hardware.efficiency.host_link_pageable
    return pinned if trial.offload.pin_memory else pageable


def _figure(hardware: HardwareConfig, key: str) -> float:
    value: float | None = operator.attrgetter(key)(hardware)
    if value is None or value <= 0:
        problem = f"projection on {hardware.name} needs this figure of its datasheet"
        raise ConfigError(f"hardware.{key}", value, problem)
    return value


def _assumptions(trial: Trial, hardware: HardwareConfig, peak_bytes: int, text_tokens: int) -> list[str]:
    gib, context = peak_bytes / footprint.GIB, footprint.CONTEXT_BYTES / footprint.GIB
    lines = [
        f"{hardware.title}: {hardware.datasheet}",
        f"efficiency: {hardware.efficiency.source}",
        f"{text_tokens} prompt tokens, padded to {trial.pipeline.max_sequence_length} for the text encoder",
        "attention at the rate of cuDNN's kernel, whatever compute.attention_backend says",
        f"memory: allocator reserve {footprint.RESERVE:.0%}, CUDA context {context:g} GiB",
        "which steps are skipped was measured on the tiny pipeline, not on this one",
    ]
    if trial.pipeline.lora is not None:
        lines.append(lora.PROJECTED)
    dims, compute = ParallelDims.of(trial.parallel), trial.compute
    if dims.ranks > 1 and not compute.cuda_graph:
        lines.append("sharded without compute=graph: the host's speed decides; those of H200 differed by 40 %")
    if offload.BY_NAME[trial.offload.mode].waiting:
        share = _host_link(trial, hardware)
        lines.append(f"offload copies at {share:.0%} of the host link, as on an H100")
    if footprint.fits(peak_bytes, hardware) is False:
        lines.append(f"does not fit: {gib:.1f} GiB at the peak, {hardware.usable_gib:g} GiB on the device")
    return lines
