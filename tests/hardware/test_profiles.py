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


def test_every_gpu_of_nvidias_has_its_compute_capability() -> None:
    """By https://developer.nvidia.com/cuda-gpus."""
    ada, hopper = ("l20", "l40s", "rtx4090"), ("h100", "h200", "h800")
    known = {"a100": 8.0, **dict.fromkeys(ada, 8.9), **dict.fromkeys(hopper, 9.0), "b200": 10.0, "b300": 10.3}
    assert {name: profile(name).compute_capability for name in GPUS} == {**known, "rtx5090": 12.0, "mi300x": None}


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
    for key in ("bandwidth", "interconnect", "host_link", "host_link_pageable", "vae"):
        assert 0 < getattr(efficiency, key) <= 1, key
    assert 0 < efficiency.gemm <= 1.16 and 0 < efficiency.attention <= 1.16, "GeForce cards clock above their datasheet"
    assert "easured" in efficiency.source


@pytest.mark.parametrize("name", sorted(set(GPUS) - {"h100", "h200"}))
def test_what_was_not_measured_says_so_and_cites_what_was_published(name: str) -> None:
    source = profile(name).efficiency.source
    assert source.startswith("Not measured on this GPU")
    assert name == "h800" or source.count("github.com/") >= 3


def test_the_h100s_shares_are_those_of_its_ceilings() -> None:
    """686 and 668.2 TFLOP/s of matrix products, 520.9 and 526.1 of attention (reports/*/ceilings.json)."""
    efficiency = profile("h100").efficiency
    assert efficiency.gemm == pytest.approx((686.0 * 668.2) ** 0.5 / 989.4, rel=0.002)
    assert efficiency.attention == pytest.approx((520.9 * 526.1) ** 0.5 / 989.4, rel=0.002)


def test_a_geforce_reaches_more_of_its_datasheet_and_other_vendors_less() -> None:
    """A data-centre card's power limit is its own, and so is a vendor's software."""
    shares = {name: profile(name).efficiency.gemm for name in ("rtx4090", "h100", "mi300x")}
    assert shares["rtx4090"] > 1.2 * shares["h100"] > 1.6 * shares["mi300x"]
