"""What this machine can run and what it lacks, one finding a line; it repairs nothing and prints nothing.

`gather` looks, `findings` judges.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from zbench.config import HardwareConfig
from zbench.environment import PACKAGES, Environment, capture, cpu_governor
from zbench.errors import RecordError
from zbench.hardware.ceilings import COMMAND, stored_ceilings
from zbench.hardware.detect import match_profile, unmatched
from zbench.hardware.nvml import Device, Nvml, visible
from zbench.zimage.hub_cache import CachedRepo, find_in_hf_cache

HUB_ID = "Tongyi-MAI/Z-Image-Turbo"
GIB = 2**30
DEVICE_NODE = Path("/dev/nvidia0")
TURBO_HOST_GIB = 24.0
"""Host memory that loading all of Z-Image-Turbo in bf16 takes, with room for the program."""

BUSY_SHARE = 0.1
"""Share of a GPU's memory in use from which the doctor says that somebody else is on it."""


@dataclass(frozen=True)
class DoctorFinding:
    """One line of `zbench doctor`."""

    name: str
    status: Literal["ok", "warn", "missing"]
    detail: str
    way_out: str = ""


@dataclass(frozen=True)
class Facts:
    """What was found, before any judgement."""

    environment: Environment
    devices: tuple[Device, ...]
    free_bytes: tuple[int | None, ...]
    """Free memory of each device."""
    nvidia_node: bool
    """Whether the operating system shows an NVIDIA device, whatever NVML says."""
    profile: str | None
    host_available_bytes: int
    compiler: str | None
    """C++ compiler that torch.compile would call."""
    weights: Path | None
    """Z-Image-Turbo in the local Hugging Face cache."""
    weights_problem: str | None
    """What a snapshot there lacks."""
    governor: str | None
    ceilings: dict[str, Any] | RecordError | None
    """What was measured on this device, or what is wrong with the file that keeps it."""


def gather(profiles: Mapping[str, HardwareConfig | str | None], nvml: Nvml | None = None) -> Facts:
    """Look at this machine. `profiles` are the choices of conf/hardware, as for `detect.match_profile`."""
    session = Nvml() if nvml is None else nvml
    devices = visible(session.devices())
    cached = _cached_weights()
    return Facts(
        environment=capture(devices),
        devices=tuple(devices),
        free_bytes=tuple(session.free_bytes(device.index) for device in devices),
        nvidia_node=DEVICE_NODE.exists(),
        profile=match_profile(devices, profiles),
        host_available_bytes=psutil.virtual_memory().available,
        compiler=_compiler(),
        weights=cached.whole.folder if cached is not None and cached.whole is not None else None,
        weights_problem=cached.problem if cached is not None else None,
        governor=cpu_governor(),
        ceilings=_ceilings(devices),
    )


def findings(facts: Facts) -> list[DoctorFinding]:
    """Judge what was found: hardware first, then software, measured ceilings, then weights."""
    return [
        *_gpus(facts),
        _profile(facts),
        _cpu(facts),
        _host_memory(facts),
        *(_package(facts, package) for package in PACKAGES if package != "zbench"),
        _checkout(facts),
        _compiles(facts),
        _measured(facts),
        _weights(facts),
    ]


def _gpus(facts: Facts) -> list[DoctorFinding]:
    if not facts.devices and facts.nvidia_node:
        detail = "the operating system shows an NVIDIA GPU, but NVML or CUDA_VISIBLE_DEVICES does not"
        way_out = "install nvidia-ml-py; check nvidia-smi and CUDA_VISIBLE_DEVICES"
        return [DoctorFinding("gpu", "missing", detail, way_out)]
    if not facts.devices:
        way_out = "on a GPU machine, check nvidia-smi; without one, hardware=b300 and the like project"
        return [DoctorFinding("gpu", "warn", "no NVIDIA GPU: the tiny pipeline is measured on the CPU", way_out)]
    return [_gpu(device, free) for device, free in zip(facts.devices, facts.free_bytes, strict=True)]


def _gpu(device: Device, free_bytes: int | None) -> DoctorFinding:
    name = f"gpu {device.index}"
    if free_bytes is None or device.memory_bytes is None:
        return DoctorFinding(name, "ok", f"{device.name}, driver {device.driver}")
    free, total = free_bytes / GIB, device.memory_bytes / GIB
    detail = f"{device.name}, {free:.1f} of {total:.1f} GiB free, driver {device.driver}"
    if free < (1 - BUSY_SHARE) * total:
        way_out = "something else is on this GPU and will disturb measurements; see nvidia-smi"
        return DoctorFinding(name, "warn", detail, way_out)
    return DoctorFinding(name, "ok", detail)


def _profile(facts: Facts) -> DoctorFinding:
    if facts.profile is None:
        return DoctorFinding("hardware profile", "missing", "the GPU is in no profile", unmatched(facts.devices))
    return DoctorFinding("hardware profile", "ok", f"hardware=auto is hardware={facts.profile}")


def _cpu(facts: Facts) -> DoctorFinding:
    detail = f"{facts.environment.cpu}, {facts.environment.cores} cores"
    if facts.governor in (None, "performance"):
        return DoctorFinding("cpu", "ok", detail if facts.governor is None else f"{detail}, governor performance")
    way_out = "sudo cpupower frequency-set -g performance steadies CPU measurements"
    return DoctorFinding("cpu", "warn", f"{detail}, governor {facts.governor}", way_out)


def _host_memory(facts: Facts) -> DoctorFinding:
    free, total = facts.host_available_bytes / GIB, facts.environment.host_memory_bytes / GIB
    detail = f"{free:.1f} of {total:.1f} GiB available"
    if free < TURBO_HOST_GIB:
        way_out = f"loading zimage_turbo takes about {TURBO_HOST_GIB:.0f} GiB; pipeline=zimage_tiny needs 2"
        return DoctorFinding("host memory", "warn", detail, way_out)
    return DoctorFinding("host memory", "ok", detail)


def _package(facts: Facts, package: str) -> DoctorFinding:
    version = facts.environment.versions.get(package)
    if version is None:
        return DoctorFinding(package, "missing", "not installed", f"pip install {package}")
    if package == "torch" and facts.devices and version.endswith("+cpu"):
        way_out = "install a CUDA build of torch (pytorch.org, Get Started)"
        return DoctorFinding(package, "warn", f"{version} cannot use the GPU", way_out)
    return DoctorFinding(package, "ok", version)


def _checkout(facts: Facts) -> DoctorFinding:
    environment = facts.environment
    version = environment.versions.get("zbench")
    if environment.git_revision is None:
        return DoctorFinding("zbench", "ok", f"{version}, not from a git checkout")
    detail = f"{version}, git {environment.git_revision[:10]}"
    if environment.git_dirty:
        way_out = "commit them, so that a record's revision says what ran"
        return DoctorFinding("zbench", "warn", f"{detail} with uncommitted changes", way_out)
    return DoctorFinding("zbench", "ok", detail)


def _compiles(facts: Facts) -> DoctorFinding:
    if facts.compiler is None:
        way_out = "install g++ (apt-get install g++), or keep compute=eager"
        return DoctorFinding("compiler", "warn", "none found: compute=compiled will fail", way_out)
    return DoctorFinding("compiler", "ok", facts.compiler)


def _measured(facts: Facts) -> DoctorFinding:
    """Whether the ceilings of this device are known, for this driver and this torch."""
    ceilings, name = facts.ceilings, "ceilings"
    if ceilings is None:
        return DoctorFinding(name, "warn", "not measured: reports give rates without the share of a ceiling", COMMAND)
    if isinstance(ceilings, RecordError):
        return DoctorFinding(name, "warn", str(ceilings), COMMAND)
    environment = facts.environment
    now = {"driver": environment.driver, "torch": environment.versions.get("torch")}
    detail = f"measured {str(ceilings.get('measured_at'))[:10]}"
    older = [f"{key} {ceilings.get(key)}, now {value}" for key, value in now.items() if ceilings.get(key) != value]
    if older:
        return DoctorFinding(name, "warn", f"{detail} with {'; '.join(older)}", f"{COMMAND} measures them again")
    return DoctorFinding(name, "ok", f"{detail}; {COMMAND} measures them again")


def _weights(facts: Facts) -> DoctorFinding:
    name, lacks = "zimage_turbo weights", facts.weights_problem
    if facts.weights is None:
        way_out = "pipeline.weights=FOLDER, pipeline.weights=random, or pipeline.download=true"
        found = "is not in the Hugging Face cache" if lacks is None else f"in the Hugging Face cache: {lacks}"
        return DoctorFinding(name, "warn", f"{HUB_ID} {found}", way_out)
    if lacks is not None:
        way_out = "pipeline.download=true fetches what is missing"
        return DoctorFinding(name, "warn", f"{facts.weights} is used, for {lacks}", way_out)
    return DoctorFinding(name, "ok", str(facts.weights))


def _ceilings(devices: Sequence[Device]) -> dict[str, Any] | RecordError | None:
    try:
        return stored_ceilings(devices)
    except RecordError as error:
        return error


def _compiler() -> str | None:
    """As Inductor looks for one: $CXX, else g++, else what calls itself c++."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def _cached_weights() -> CachedRepo | None:
    try:
        return find_in_hf_cache(HUB_ID)
    except ImportError:  # huggingface_hub comes with diffusers, whose absence has its own finding
        return None
