"""A device type: figures of its datasheet, and which share of them is reached."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from zbench.config.group import Group
from zbench.errors import ConfigError

VRAM_RESERVE_GIB = 0.5  # of `hardware.vram_limit_gib`, left to what grows outside torch's allocator


@dataclass
class EfficiencyConfig:
    """Which share of a datasheet's peak is reached, and where that share was measured."""

    gemm: float = MISSING  # of peak dense matmul rate
    attention: float = MISSING  # of peak dense matmul rate
    bandwidth: float = MISSING  # of memory bandwidth
    interconnect: float = MISSING  # of interconnect bandwidth
    host_link: float = MISSING  # of host link bandwidth, copies from pinned memory
    host_link_pageable: float = MISSING  # of host link bandwidth, copies from pageable memory
    vae: float = MISSING  # of peak dense matmul rate, convolutions of the VAE decoder
    activation_passes: float = MISSING  # times a compiled block moves its hidden state through memory
    step_gap_s: float = MISSING  # unexplained by both: seconds a compiled Z-Image-Turbo forward (34 blocks)
    eager_activation_passes: float = MISSING  # as activation_passes, without torch.compile
    eager_step_gap_s: float = MISSING  # as step_gap_s, without torch.compile
    image_overhead_s: float = MISSING  # scheduler, conversion to an image and other host work, seconds an image
    fp32_tflops: float | None = None  # measured float32 matmul rate that shares refer to; null: not projected
    source: str = MISSING


@dataclass
class HardwareConfig(Group):
    """One device type: datasheet figures for projection, and how to recognise it."""

    name: str = MISSING
    title: str = MISSING
    nvml_name: str | None = None  # regular expression over NVML's device name; null: not a GPU
    peak_bf16_tflops: float | None = None  # dense
    peak_fp8_tflops: float | None = None  # dense
    memory_gib: float | None = None
    vram_limit_gib: float | None = None  # cap that measured trials are held to, as if the card had no more
    memory_bandwidth_gb_s: float | None = None
    interconnect: str | None = None
    interconnect_gb_s: float | None = None  # one direction, one device
    host_link_gb_s: float | None = None  # one direction
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
