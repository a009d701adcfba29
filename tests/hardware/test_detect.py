"""A profile is present when a device's NVML name is exactly its own, and what is missing is said."""

import re

import pytest
from fake_nvml import FakeGpu, FakeNvml
from hardware_profiles import NAMES, profile

from zbench.errors import ConfigError
from zbench.hardware.detect import describe_present, is_present, match_profile, present_devices, unmatched
from zbench.hardware.nvml import Nvml

PROFILES = {name: profile(name) for name in NAMES}


def devices(*names: str):
    return present_devices(Nvml(FakeNvml(*(FakeGpu(name=name) for name in names))))


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 5090", "rtx5090"),
        ("NVIDIA H800", "h800"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L20", "l20"),
        ("NVIDIA B200", "b200"),
    ],
)
def test_hardware_auto_is_the_profile_of_the_gpu(name: str, choice: str) -> None:
    assert match_profile(devices(name), PROFILES) == choice
    assert is_present(PROFILES[choice], devices(name))


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 PCIe",  # fewer multiprocessors, HBM2e
        "NVIDIA H100 NVL",  # 94 GB
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",  # a seventh of one
        "NVIDIA H200 NVL",  # lower power
        "NVIDIA GB300",  # Grace host link
        "NVIDIA GeForce RTX 4090 D",  # fewer multiprocessors
        "NVIDIA GeForce RTX 4090 Laptop GPU",  # AD103
        "NVIDIA GeForce RTX 5090 D",  # fewer tensor operations
        "NVIDIA A100-SXM4-40GB",
        "NVIDIA A100 80GB PCIe",
        "NVIDIA L40",
    ],
)
def test_a_gpu_that_merely_looks_like_a_profile_matches_none(name: str) -> None:
    found = devices(name)
    assert match_profile(found, PROFILES) is None
    assert name in unmatched(found)
    assert "hardware=cpu" in unmatched(found)


def test_the_pattern_in_the_way_out_matches_the_gpu_it_was_written_for() -> None:
    found = devices("NVIDIA RTX PRO 6000")
    pattern = re.search(r"nvml_name: '(.+?)'", unmatched(found))
    assert pattern is not None
    assert match_profile(found, {"mine": pattern[1]}) == "mine"


def test_without_a_gpu_auto_is_the_cpu_and_only_the_cpu_is_present() -> None:
    assert match_profile([], PROFILES) == "cpu"
    assert [name for name in NAMES if is_present(PROFILES[name], [])] == ["cpu"]


def test_profiles_may_be_given_as_patterns() -> None:
    assert match_profile(devices("NVIDIA H200"), {"cpu": None, "big": "H200"}) == "big"


def test_a_pattern_that_is_no_regular_expression_is_the_users_error() -> None:
    with pytest.raises(ConfigError, match=r"hardware\.nvml_name=\("):
        match_profile(devices("NVIDIA H200"), {"broken": "("})


def test_what_is_here_names_gpus_and_cpu() -> None:
    assert describe_present([]).startswith("found: no NVIDIA GPU; CPU ")
    assert "NVIDIA H200 (80 GiB)" in describe_present(devices("NVIDIA H200"))
