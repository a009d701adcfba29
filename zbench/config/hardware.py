"""A device type: figures of its datasheet, and which share of them is reached."""

import re
from dataclasses import dataclass, field

from omegaconf import MISSING

from zbench.config.group import Group
from zbench.config.ranges import number
from zbench.errors import ConfigError

MOST = 1e7
"""No device has as many GiB, GB/s or TFLOPS."""

MOST_DEVICES = 1024

MOST_CAPABILITY = 100
"""No GPU of NVIDIA's has a compute capability as high."""

MOST_SHARE = 1.5
"""Of a datasheet's matmul rate: cards that are held to no power limit clock above what it names."""

MOST_SPREAD = 10

VRAM_RESERVE_GIB = 0.5  # of `hardware.vram_limit_gib`, left to what grows outside torch's allocator


@dataclass
class SpreadConfig:
    """How far each part of a projection may be off: with 0.2, nine times in ten it lies within /1.2 and ×1.2."""

    gemm: float = number(0.3, 0, MOST_SPREAD)  # matrix products of the transformer
    attention: float = number(0.4, 0, MOST_SPREAD)
    activations: float = number(0.3, 0, MOST_SPREAD)  # bytes moved, and what goes with tokens
    gap: float = number(0.6, 0, MOST_SPREAD)  # of a forward: what goes with neither
    text: float = number(0.8, 0, MOST_SPREAD)  # text encoding
    decode: float = number(0.5, 0, MOST_SPREAD)
    exchange: float = number(0.6, 0, MOST_SPREAD)  # between devices
    host: float = number(0.8, 0, MOST_SPREAD)  # starting kernel after kernel, swapping layer after layer
    copy: float = number(0.4, 0, MOST_SPREAD)  # over the host link
    overhead: float = number(1.0, 0, MOST_SPREAD)  # of an image
    fp8: float = number(0.4, 0, MOST_SPREAD)  # matrix products and attention in FP8
    model: float = number(0.1, 0, MOST_SPREAD)  # of all of it: what the model leaves out
    memory: float = number(0.15, 0, MOST_SPREAD)  # of the peak


@dataclass
class EfficiencyConfig:
    """Which share of a datasheet's peak is reached, and where that share was measured."""

    gemm: float = number(MISSING, 0, MOST_SHARE, above=True)  # of peak dense matmul rate
    attention: float = number(MISSING, 0, MOST_SHARE, above=True)  # of peak dense matmul rate
    bandwidth: float = number(MISSING, 0, 1, above=True)  # of memory bandwidth
    interconnect: float = number(MISSING, 0, 1, above=True)  # of interconnect bandwidth
    host_link: float = number(MISSING, 0, 1, above=True)  # of host link bandwidth, copies from pinned memory
    host_link_pageable: float = number(MISSING, 0, 1, above=True)  # of host link bandwidth, copies from pageable memory
    vae: float = number(MISSING, 0, 1, above=True)  # of peak dense matmul rate, convolutions of the VAE decoder
    activation_passes: float = number(MISSING, 0, 100_000)  # times a compiled block moves its hidden state
    step_gap_s: float = number(MISSING, 0, 1000)  # unexplained by both: a compiled Z-Image-Turbo forward (34 blocks)
    eager_activation_passes: float = number(MISSING, 0, 100_000)  # as activation_passes, without torch.compile
    eager_step_gap_s: float = number(MISSING, 0, 1000)  # as step_gap_s, without torch.compile
    image_overhead_s: float = number(MISSING, 0, 1000)  # scheduler, conversion and other host work, an image
    fp32_tflops: float | None = number(None, 0, MOST, above=True)  # measured, shares refer to it; null: not projected
    token_s: float = number(0.0, 0, 1000)  # of a compiled forward at 1024x1024: goes with tokens, not with bandwidth
    eager_token_s: float = number(0.0, 0, 1000)  # as token_s, without torch.compile
    vae_split: float | None = number(None, 0, 1, above=True)  # as vae, where devices share a decode; null: as vae
    text_gap_s: float | None = number(None, 0, 1000)  # of a text encoding, 36 layers; null: as eager_step_gap_s
    text_graph_gap_s: float | None = number(None, 0, 1000)  # the same as one CUDA graph; null: as text_gap_s
    swap_s: float = number(0.0, 0, 1000)  # a layer that offload=sequential brings, besides its copy
    fast_activation_passes: float | None = number(None, 0, 100_000)  # as activation_passes, of real rotations
    fast_token_s: float | None = number(None, 0, 1000)  # as token_s, of compiled blocks with compute.rope=real
    fast_step_gap_s: float | None = number(None, 0, 1000)  # as step_gap_s, with compute.rope=real; null each: as there
    fast_text_gap_s: float | None = number(None, 0, 1000)  # as text_gap_s, of compute.text=compiled; null: as there
    fast_text_graph_gap_s: float | None = number(None, 0, 1000)  # as text_graph_gap_s, the same; null: as there
    fast_overhead_s: float | None = number(None, 0, 1000)  # as image_overhead_s, text not padded; null: as there
    fast_vae: float | None = number(None, 0, 1, above=True)  # as vae, of compute.decode=compiled; null: as vae
    fp8_gemm: float | None = number(None, 0, MOST_SHARE, above=True)  # of peak FP8 rate, with rounding; null: 0.8 gemm
    fp8_attention: float | None = number(None, 0, MOST_SHARE, above=True)  # of peak FP8 rate, cudnn_fp8; null: bf16's
    spread: SpreadConfig = field(default_factory=SpreadConfig)
    source: str = MISSING


LATER_SHARES = (
    *("token_s", "eager_token_s", "vae_split", "text_gap_s", "text_graph_gap_s", "swap_s", "spread"),
    *("fast_activation_passes", "fast_token_s", "fast_step_gap_s", "fast_text_gap_s", "fast_text_graph_gap_s"),
    *("fast_overhead_s", "fast_vae", "fp8_gemm", "fp8_attention"),
)
"""Fields of EfficiencyConfig that came after schema 2."""


@dataclass
class HardwareConfig(Group):
    """One device type: datasheet figures for projection, and how to recognise it."""

    name: str = MISSING
    title: str = MISSING
    nvml_name: str | None = None  # regular expression over NVML's device name; null: not a GPU
    compute_capability: float | None = number(None, 0, MOST_CAPABILITY, above=True)  # NVIDIA's; null: not known
    peak_bf16_tflops: float | None = number(None, 0, MOST, above=True)  # dense
    peak_fp8_tflops: float | None = number(None, 0, MOST, above=True)  # dense
    memory_gib: float | None = number(None, 0, MOST, above=True)
    num_devices: int | None = number(None, 1, MOST_DEVICES)  # that a trial may use at most; null: all that are here
    vram_limit_gib: float | None = number(None, 0, MOST, above=True)  # cap on measured trials, as of a smaller card
    memory_bandwidth_gb_s: float | None = number(None, 0, MOST, above=True)
    interconnect: str | None = None
    interconnect_gb_s: float | None = number(None, 0, MOST, above=True)  # one direction, one device
    host_link_gb_s: float | None = number(None, 0, MOST, above=True)  # one direction
    datasheet: str = MISSING
    efficiency: EfficiencyConfig = field(default_factory=EfficiencyConfig)

    @property
    def usable_gib(self) -> float | None:
        """Its memory, or the cap on it."""
        known = [size for size in (self.memory_gib, self.vram_limit_gib) if size is not None]
        return min(known, default=None)


def check_hardware(hardware: HardwareConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    cap = hardware.vram_limit_gib
    if cap is not None and cap <= VRAM_RESERVE_GIB:
        raise ConfigError("hardware.vram_limit_gib", cap, f"must be above the {VRAM_RESERVE_GIB:g} GiB kept in reserve")
    try:
        re.compile(hardware.nvml_name or "")
    except re.error as error:
        raise ConfigError("hardware.nvml_name", hardware.nvml_name, f"is no regular expression ({error})") from error
