"""Seconds of every part of an image of one trial on one kind of device, from FLOPs, bytes and a profile's shares.

A stage takes its FLOPs over the matmul rate that the profile's `efficiency` says is reached, plus the bytes its
activations move over the memory bandwidth, plus what goes with tokens alone, plus what none explains (`step_gap_s`),
plus what devices exchange and what offloading copies. Nothing is taken to overlap, but for group offload with a stream
and for a text encoder whose layers come one ahead of use: there the longer of copying and computing counts.
Of several devices the one with the largest share counts; replicas (`dp`) change no latency, on a CPU they share its
cores as all ranks do.
"""

import math
import operator
from dataclasses import dataclass

from zbench.config import ComputeConfig, EfficiencyConfig, HardwareConfig
from zbench.errors import ConfigError
from zbench.hardware import footprint, host, traffic
from zbench.hardware.seconds import Parts, longest
from zbench.methods import attention, dtypes, fast, graphs, offload, quantization
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial
from zbench.zimage import flops
from zbench.zimage.geometry import Geometry

GAP_BLOCKS = 34
"""Blocks of the forward that times of a forward are given for: Z-Image-Turbo's 30 main ones and 4 of its refiners."""

BLOCK_TOKENS = (4096 + 64) * 32
"""Tokens that pass a block in that forward, summed over its blocks: 1024x1024 with 64 prompt tokens."""

TEXT_LAYERS = 36
"""Layers of the text encoder that `text_gap_s` is given for."""

UNFITTED_FP8 = 0.8
"""Of the share of `gemm`, where a profile has no `fp8_gemm`: about what was fitted to an H100."""


@dataclass(frozen=True)
class DeviceRates:
    """How fast one device works."""

    dtype_bytes: int
    gemm: float  # FLOP/s
    fp8_gemm: float | None  # FLOP/s; None where the datasheet has none
    attention: float  # FLOP/s
    fp8_attention: float | None  # FLOP/s; None where the datasheet has none
    vae: float  # FLOP/s
    bandwidth: float  # bytes/s
    activation_passes: float
    token_s: float  # a token of a block
    gap_s: float  # a forward of GAP_BLOCKS

    @classmethod
    def of(cls, hardware: HardwareConfig, *, compute: ComputeConfig, ideal: bool = False) -> "DeviceRates":
        """Rates that `compute` reaches, or with `ideal` those of the datasheet. ConfigError names the figure that is
        missing."""
        dtype = dtype_of(compute, hardware)
        e, kind = hardware.efficiency, dtypes.BY_NAME[dtype]
        if kind.instead is not None and operator.attrgetter(kind.peak_key)(hardware) is None:
            problem = f"hardware={hardware.name} has no {dtype} rate; use {kind.instead}"
            raise ConfigError("compute.dtype", dtype, problem)
        fp8_peak = None if hardware.peak_fp8_tflops is None else hardware.peak_fp8_tflops * 1e12
        peak, dtype_bytes = figure_of(hardware, kind.peak_key) * 1e12, kind.nbytes
        passes, token_s, gap_s = _of_stack(e, compute)
        needs_bandwidth = hardware.nvml_name is not None or passes > 0
        bandwidth = figure_of(hardware, "memory_bandwidth_gb_s") * 1e9 if needs_bandwidth else math.inf
        if ideal:
            nothing = {"activation_passes": 0.0, "token_s": 0.0, "gap_s": 0.0}
            return cls(dtype_bytes, peak, fp8_peak, peak, fp8_peak, peak, bandwidth, **nothing)
        fp8 = None if fp8_peak is None else fp8_peak * (e.fp8_gemm or UNFITTED_FP8 * e.gemm)
        attending = None if fp8_peak is None or e.fp8_attention is None else fp8_peak * e.fp8_attention
        vae = e.fast_vae if compute.decode == "compiled" and e.fast_vae is not None else e.vae
        rates = (peak * e.gemm, fp8, peak * e.attention, attending, peak * vae)
        return cls(dtype_bytes, *rates, bandwidth * e.bandwidth, passes, token_s / BLOCK_TOKENS, gap_s)


def _of_stack(e: EfficiencyConfig, compute: ComputeConfig) -> tuple[float, float, float]:
    """Passes, token time and gap of a forward: eager, compiled, or compiled with real rotations."""
    if not compute.compile:
        return e.eager_activation_passes, e.eager_token_s, e.eager_step_gap_s
    plain = (e.activation_passes, e.token_s, e.step_gap_s)
    if not fast.joins_rotations(compute):
        return plain
    own = (e.fast_activation_passes, e.fast_token_s, e.fast_step_gap_s)
    passes, token_s, gap_s = (one if one is not None else other for one, other in zip(own, plain, strict=True))
    return passes, token_s, gap_s


class Cost:
    """Seconds of every part of an image of one trial on one kind of device."""

    def __init__(
        self,
        trial: Trial,
        geometry: Geometry,
        hardware: HardwareConfig,
        text_tokens: int,
        rates: DeviceRates | None = None,
        costs: host.HostCosts | None = None,
    ) -> None:
        """`rates` other than the profile's are ideal ones; `costs` are of the host, None: the fitted ones."""
        self.trial, self.geometry, self.hardware, self.text_tokens = trial, geometry, hardware, text_tokens
        self.rates = rates or DeviceRates.of(hardware, compute=trial.compute)
        self.is_ideal = rates is not None
        self.costs = costs or host.fitted()
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

    def stages(self) -> dict[str, Parts]:
        """Everything of an image but its steps; `overhead` is what no stage explains.

        What is copied of a text encoder whose layers come one ahead is in its own stage, as it is where one is timed.
        """
        e, of = self.hardware.efficiency, self.trial.offload
        text, copied = self.text_encode(), Parts.of(copy=self.text_copy_s())
        ahead = offload.BY_NAME[of.mode].streams_text
        rest = Parts.of(copy=self._host_s(traffic.whole_transfer_bytes(of, self.weights)))
        own_s = e.fast_overhead_s if fast.reads_real_tokens(self.trial.compute) else None
        return {
            "text_encode": longest(text, copied) if ahead else text,
            "decode": self.decode(),
            "offload_transfer": rest if ahead else rest + copied,
            "overhead": Parts.of(overhead=e.image_overhead_s if own_s is None else own_s),
        }

    @property
    def text_layers(self) -> int:
        """Layers of the text encoder that run."""
        return self.geometry.text_encoder.n_layers - fast.reads_real_tokens(self.trial.compute)

    def text_copy_s(self) -> float:
        """Seconds of what is copied of the text encoder for an image."""
        layers = self.geometry.text_encoder.n_layers
        return self._host_s(traffic.text_transfer_bytes(self.trial.offload, self.weights, layers, self.text_layers))

    def text_encode(self) -> Parts:
        """The prompts in one call, and the empty ones with guidance, split over the devices of an image where asked.

        The host's part (`text_gap_s`) is a call's, however many prompts; split, a layer has two all-reduces.
        """
        encoder, layers = self.geometry.text_encoder, self.text_layers
        tokens = footprint.encoded_tokens(self.trial, self.text_tokens)
        over = self.dims.ranks if self.trial.parallel.text_encoder == "tp" else 1
        run, prompts = flops.text_encoder_flops(self.geometry, tokens, layers), self.trial.pipeline.encoded_prompts
        read = (self.weights.text_encoder - self.weights.text_encoder_table) * layers / encoder.n_layers
        gemm_s = max(prompts * run.gemm / over / self.rates.gemm, read / self.rates.bandwidth)
        reduced = 2 * layers * 2 * (over - 1) / over * tokens * encoder.hidden_size * self.rates.dtype_bytes
        attention_s = prompts * run.attention / over / self.rates.attention
        once_s = gemm_s + attention_s + self._text_gap_s()
        swap_s = layers * self._swap_s()
        return Parts.of(text=self.turns * once_s, exchange=prompts * self._exchange_s(reduced), host=swap_s)

    def _text_gap_s(self) -> float:
        """What neither arithmetic nor memory explains: less as one CUDA graph, where nothing moves or splits it."""
        if self.is_ideal:
            return 0.0
        trial, e, layers = self.trial, self.hardware.efficiency, self.geometry.text_encoder.n_layers
        if e.text_gap_s is None:
            return e.eager_step_gap_s * layers / GAP_BLOCKS * trial.pipeline.encoded_prompts
        captured = is_text_captured(trial)
        gap_s = e.text_graph_gap_s if captured and e.text_graph_gap_s is not None else e.text_gap_s
        if trial.compute.text == "compiled":
            own = e.fast_text_graph_gap_s if captured else e.fast_text_gap_s
            gap_s = gap_s if own is None else own
        return gap_s * layers / TEXT_LAYERS

    def decode(self) -> Parts:
        """The VAE's decode, its attention at the rate of its convolutions, where it was measured.

        Devices that share it have a part of its rows; what they exchange at their borders is not counted.
        """
        pipeline, e = self.trial.pipeline, self.hardware.efficiency
        run = flops.vae_decode_flops(self.geometry, pipeline.height, pipeline.width)
        part = footprint.decode_share(self.trial, self.geometry)
        rate = self.rates.vae
        if part < 1 and e.vae_split is not None and not self.is_ideal:
            rate *= e.vae_split / e.vae
        return Parts.of(decode=self.turns * part * pipeline.images * run.total / rate)

    def compute(self, blocks: int) -> Parts:
        """Arithmetic of a forward through `blocks` main blocks on the device with the largest share, and its gaps."""
        samples = self.dims.samples(self.trial.pipeline.samples)
        run = flops.step_flops(self.geometry, self.image_tokens, self.text_tokens, blocks) * samples
        n_layers, heads = self.geometry.transformer.n_layers, self.geometry.transformer.n_heads
        read = Parts.of(activations=self.weights.step(blocks, n_layers) / self.rates.bandwidth)
        share, in_fp8 = self._token_share / self.dims.tp, self._fp8_flops(blocks) * samples
        products = Parts.of(gemm=(run.gemm - in_fp8) * share / self.rates.gemm)
        if in_fp8 and self.rates.fp8_gemm is not None:
            products += Parts.of(fp8=in_fp8 * share / self.rates.fp8_gemm)
        attended = self._attended(run.attention * self.dims.attention_share(self._tokens, heads))
        gap_s = self.rates.gap_s * (blocks + 2 * self.geometry.transformer.n_refiner_layers) / GAP_BLOCKS
        once = longest(products, read) + attended + Parts.of(gap=gap_s)
        return once * self.turns

    def _attended(self, done: float) -> Parts:
        """Attention of so many FLOPs; in FP8 where it is asked for and known."""
        if self.trial.compute.attention_backend == attention.CUDNN_FP8 and self.rates.fp8_attention is not None:
            return Parts.of(fp8=done / self.rates.fp8_attention)
        return Parts.of(attention=done / self.rates.attention)

    def _fp8_flops(self, blocks: int) -> float:
        """Of the matrix products of one sample through `blocks` main blocks, those that are quantised."""
        quantised = quantization.quantised_blocks(self.trial.compute, blocks)
        if quantised == 0 or self.rates.fp8_gemm is None:
            return 0.0
        of_block = quantization.block_parameters(self.trial.compute, self.geometry.transformer)
        return 2 * self._tokens * of_block * quantised

    def step(self, blocks: int) -> Parts:
        """A step: arithmetic, activations (which tensor parallelism does not split), exchange, offload."""
        trial, t = self.trial, self.geometry.transformer
        samples = self.dims.samples(trial.pipeline.samples)
        tokens = traffic.block_tokens(self.geometry, self.image_tokens, self.text_tokens, blocks) * samples
        hidden_bytes = float(tokens * t.dim * self.rates.dtype_bytes)
        moved_s = self.rates.activation_passes * hidden_bytes * self._token_share / self.rates.bandwidth
        moved_s += self.rates.token_s * tokens * self._token_share
        output_bytes = trial.pipeline.samples * self.image_tokens * t.patch_dim * self.rates.dtype_bytes
        sent = hidden_bytes * self.dims.sent_share + output_bytes * self.dims.output_share
        through = blocks + 2 * t.n_refiner_layers
        busy = self.compute(blocks) + Parts.of(activations=self.turns * moved_s, exchange=self._exchange_s(sent))
        if self.hardware.nvml_name is not None:
            busy = longest(busy, Parts.of(host=host.start_s(self.dims, trial, through, self.costs)))
        copy_s = self._host_s(traffic.step_transfer_bytes(trial.offload, self.weights.step(blocks, t.n_layers)))
        copied = Parts.of(copy=copy_s, host=through * self._swap_s())
        return longest(busy, copied) if offload.overlaps(trial.offload) else busy + copied

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
        return sent_bytes / (
            figure_of(self.hardware, "interconnect_gb_s") * 1e9 * self.hardware.efficiency.interconnect
        )

    def _host_s(self, copied_bytes: float) -> float:
        """Nothing on a CPU, whose memory is the host's."""
        if not copied_bytes or self.hardware.nvml_name is None:
            return 0.0
        return copied_bytes / (figure_of(self.hardware, "host_link_gb_s") * 1e9 * host_link(self.trial, self.hardware))

    def _swap_s(self) -> float:
        """What bringing one layer takes the host besides its copy."""
        swaps = self.trial.offload.mode == "sequential" and not self.is_ideal
        return self.hardware.efficiency.swap_s if swaps else 0.0


def is_text_captured(trial: Trial) -> bool:
    """Whether reading the prompts is one CUDA graph."""
    return trial.graphs != graphs.NONE and "text_encoder" in graphs.stages_that_stay(trial.parallel, trial.offload)


def dtype_of(compute: ComputeConfig, hardware: HardwareConfig) -> str:
    """What the arithmetic is done in; ConfigError where it is not done on `hardware` at all."""
    if compute.device == "cpu" and hardware.nvml_name is not None:
        problem = f"hardware={hardware.name} describes a GPU; name hardware=cpu or leave compute.device out"
        raise ConfigError("compute.device", compute.device, problem)
    return dtypes.dtype_on("cpu" if hardware.nvml_name is None else "cuda", compute.dtype).name


def host_link(trial: Trial, hardware: HardwareConfig) -> float:
    """Share of the host link's bandwidth that copies reach."""
    pinned, pageable = hardware.efficiency.host_link, hardware.efficiency.host_link_pageable
    return pinned if trial.offload.pin_memory else pageable


def figure_of(hardware: HardwareConfig, key: str) -> float:
    """A figure of the datasheet; ConfigError where the profile has none."""
    value: float | None = operator.attrgetter(key)(hardware)
    if value is None or value <= 0:
        problem = f"projection on {hardware.name} needs this figure of its datasheet"
        raise ConfigError(f"hardware.{key}", value, problem)
    return value
