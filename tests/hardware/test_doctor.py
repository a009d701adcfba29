"""The doctor says what is here, what is missing and what to do about it."""

from dataclasses import replace
from pathlib import Path

from fake_nvml import GIB, FakeGpu, FakeNvml
from hardware_profiles import NAMES, profile

from zbench.environment import capture
from zbench.errors import RecordError
from zbench.hardware.doctor import DoctorFinding, Facts, findings, gather
from zbench.hardware.nvml import Nvml

PROFILES = {name: profile(name) for name in NAMES}


def facts(*gpus: FakeGpu, **changed: object) -> Facts:
    """A healthy machine with these GPUs, except for what is changed."""
    found = gather(PROFILES, Nvml(FakeNvml(*gpus)))
    versions = {"torch": "2.13.0", "diffusers": "0.42.1", "transformers": "5.23.0", "cache-dit": "1.5.3", "zbench": "1"}
    environment = replace(capture(found.devices), versions=versions, git_revision=None, host_memory_bytes=64 * GIB)
    healthy = replace(
        found,
        environment=environment,
        nvidia_node=bool(gpus),
        host_available_bytes=60 * GIB,
        compiler="/usr/bin/g++",
        weights=Path("/cache/turbo"),
        weights_problem=None,
        governor="performance",
        ceilings={"measured_at": "2026-01-01T00:00:00+00:00", "torch": "2.13.0", "driver": environment.driver},
    )
    return replace(healthy, **changed)


def finding(about: str, found: Facts) -> DoctorFinding:
    return next(f for f in findings(found) if f.name == about)


def test_a_healthy_gpu_machine_has_nothing_to_mend() -> None:
    assert {f.status for f in findings(facts(FakeGpu()))} == {"ok"}


def test_whatever_is_not_ok_has_a_way_out() -> None:
    poor = facts(weights=None, compiler=None, governor="powersave", host_available_bytes=4 * GIB)
    poor = replace(poor, environment=replace(poor.environment, versions={}))
    bad = [f for f in findings(poor) if f.status != "ok"]
    assert len(bad) == 10  # gpu, cpu, host memory, four packages, compiler, ceilings of another torch, weights
    assert all(f.way_out for f in bad)


def test_no_gpu_is_a_warning_and_the_cpu_profile_is_used() -> None:
    assert finding("gpu", facts()).status == "warn"
    assert "hardware=cpu" in finding("hardware profile", facts()).detail


def test_a_gpu_that_only_the_operating_system_sees_is_missing() -> None:
    assert finding("gpu", facts(nvidia_node=True)).status == "missing"


def test_a_gpu_of_no_profile_names_itself_and_the_way_out() -> None:
    found = finding("hardware profile", facts(FakeGpu(name="NVIDIA L4")))
    assert found.status == "missing"
    assert "NVIDIA L4" in found.way_out


def test_a_gpu_somebody_else_is_using_is_warned_of() -> None:
    assert finding("gpu 0", facts(FakeGpu(used=1 * GIB))).status == "ok"
    busy = finding("gpu 0", facts(FakeGpu(used=30 * GIB)))
    assert busy.status == "warn"
    assert "50.0 of 80.0 GiB free" in busy.detail


def test_a_cpu_build_of_torch_beside_a_gpu_is_warned_of() -> None:
    beside = facts(FakeGpu())
    cpu_build = {**beside.environment.versions, "torch": "2.13.0+cpu"}
    assert (
        finding("torch", replace(beside, environment=replace(beside.environment, versions=cpu_build))).status == "warn"
    )
    alone = facts()
    assert finding("torch", replace(alone, environment=replace(alone.environment, versions=cpu_build))).status == "ok"


def test_weights_that_are_not_whole_are_told_from_none() -> None:
    lacks = "snapshot abc is incomplete: a.safetensors: missing file"
    assert finding("zimage_turbo weights", facts(weights=None, weights_problem=lacks)).detail.endswith(lacks)
    instead = finding("zimage_turbo weights", facts(weights_problem=lacks))
    assert instead.status == "warn" and instead.detail == f"/cache/turbo is used, for {lacks}"


def test_missing_weights_name_the_three_ways_to_get_some() -> None:
    way_out = finding("zimage_turbo weights", facts(weights=None)).way_out
    assert all(
        way in way_out for way in ("pipeline.weights=FOLDER", "pipeline.weights=random", "pipeline.download=true")
    )


def test_uncommitted_changes_are_warned_of() -> None:
    here = facts()
    dirty = replace(here.environment, git_revision="0123456789abcdef", git_dirty=True)
    assert finding("zbench", replace(here, environment=dirty)).status == "warn"


def test_the_doctor_says_whether_ceilings_were_measured_and_how() -> None:
    assert "2026-01-01" in finding("ceilings", facts(FakeGpu())).detail
    for ceilings, says in (
        (None, "not measured"),
        (RecordError("/somewhere/h100.json: not JSON"), "/somewhere/h100.json"),
        ({"measured_at": "2026-01-01", "torch": "2.11.0", "driver": None}, "torch 2.11.0, now 2.13.0"),
    ):
        found = finding("ceilings", facts(ceilings=ceilings))
        assert found.status == "warn" and says in found.detail and "zbench doctor --measure" in found.way_out


def test_this_machine_can_be_examined() -> None:
    assert {"cpu", "host memory", "torch", "zbench"} <= {f.name for f in findings(gather(PROFILES))}
