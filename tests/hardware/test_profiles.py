"""The shipped profiles hold dense figures, and say where each came from."""

import pytest
from hardware_profiles import NAMES, profile

GPUS = [name for name in NAMES if name != "cpu"]

# Dense bf16 and fp8 TFLOP/s. NVIDIA's datasheets print the sparse ones, twice as high: H100 and H200 1,979 and 3,958;
# an HGX B200 or B300 of 8 GPUs 36,000 and 72,000; the Ada whitepaper's table gives the 4090 165.2 (330.3) and 330.3
# (660.6), the RTX Blackwell one the 5090 209.5 (419) and 419 (838); the A100 has no FP8.
DENSE = {
    "a100": (312, None),
    "b200": (2250, 4500),
    "b300": (2250, 4500),
    "h100": (989.4, 1978.9),
    "h200": (989.4, 1978.9),
    "h800": (989.4, 1978.9),
    "l20": (119.5, 239),
    "l40s": (362.05, 733),
    "mi300x": (1307.4, 2614.9),
    "rtx4090": (165.2, 330.3),
    "rtx5090": (209.5, 419),
}


@pytest.mark.parametrize("name", GPUS)
def test_peaks_are_dense(name: str) -> None:
    assert (profile(name).peak_bf16_tflops, profile(name).peak_fp8_tflops) == DENSE[name]


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_has_every_figure_that_projection_needs(name: str) -> None:
    gpu = profile(name)
    figures = (gpu.memory_gib, gpu.memory_bandwidth_gb_s, gpu.interconnect_gb_s, gpu.host_link_gb_s)
    assert all(figure is not None and figure > 0 for figure in figures)
    assert gpu.name == name
    assert gpu.datasheet and gpu.interconnect


@pytest.mark.parametrize("name", NAMES)
def test_shares_are_shares_and_name_their_source(name: str) -> None:
    efficiency = profile(name).efficiency
    for key in ("gemm", "attention", "bandwidth", "interconnect", "host_link", "host_link_pageable", "vae"):
        assert 0 < getattr(efficiency, key) <= 1, key
    assert "easured" in efficiency.source


@pytest.mark.parametrize("name", sorted(set(GPUS) - {"h100", "h200"}))
def test_factors_taken_over_from_the_h100_say_that_they_are_not_validated(name: str) -> None:
    assert profile(name).efficiency.source.startswith("Not validated on this GPU")


def test_the_h100s_shares_are_those_of_its_measured_forward() -> None:
    """62.4 ms of GEMM and 16.7 ms of attention in a forward of 47.12 and 8.49 TFLOP (see zimage.flops)."""
    efficiency = profile("h100").efficiency
    assert efficiency.gemm == pytest.approx(47.12 / 62.4e-3 / 989.4, rel=0.005)
    assert efficiency.attention == pytest.approx(8.49 / 16.7e-3 / 989.4, rel=0.005)
    assert efficiency.vae == pytest.approx(10.47 / 92e-3 / 989.4, rel=0.005)
    assert efficiency.step_gap_s == pytest.approx(97.5e-3 - 90.2e-3)
