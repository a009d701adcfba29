"""Which hardware is here, and which profile describes it; it refuses to match a GPU to a profile that merely
looks like it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from zbench.config import HardwareConfig
from zbench.environment import DeviceLike, Environment, capture, cores_available, cpu_model
from zbench.errors import ConfigError
from zbench.hardware.ceilings import stored_ceilings
from zbench.hardware.equal_workers import stored_noise
from zbench.hardware.nvml import Device, Nvml, visible

CPU = "cpu"
"""Name of the profile of a machine without a GPU."""

ANY_GPU = "auto"
"""Name of the profile of a GPU of any kind: what `hardware=auto` is where nobody knows before which one a job gets."""

GIB = 2**30


def present_devices(nvml: Nvml | None = None) -> list[Device]:
    """The GPUs that CUDA may use here; none without a driver."""
    session = Nvml() if nvml is None else nvml
    return visible(session.devices())


def present_environment() -> Environment:
    """Where a measurement made now is made: this process, the GPUs that CUDA may use, and what was measured of them.

    RecordError where a file of that is broken.
    """
    return environment_on(present_devices())


def environment_on(devices: Sequence[Device]) -> Environment:
    """This machine with these of its GPUs. RecordError where a file of what was measured of them is broken."""
    here = capture(devices)
    return replace(here, ceilings=stored_ceilings(devices), noise=stored_noise(devices, here.to_dict()))


def is_present(profile: HardwareConfig, devices: Sequence[DeviceLike]) -> bool:
    """Whether the profile's hardware is here. A profile without `nvml_name` is a CPU's, and a CPU always
    is."""
    return profile.nvml_name is None or any(names(profile.nvml_name, d.name) for d in devices)


def match_profile(devices: Sequence[DeviceLike], profiles: Mapping[str, HardwareConfig | str | None]) -> str | None:
    """Name of the profile for `hardware=auto`: that of the first GPU, `cpu` without one, None if no profile
    fits.

    `profiles` maps a choice of conf/hardware to its profile or to its `nvml_name`.
    """
    return profile_of(devices[0].name, profiles) if devices else CPU


def profile_of(device_name: str, profiles: Mapping[str, HardwareConfig | str | None]) -> str | None:
    """Name of the profile that describes the GPU that NVML calls `device_name`; None if no profile does."""
    for choice, profile in profiles.items():
        pattern = profile.nvml_name if isinstance(profile, HardwareConfig) else profile
        if pattern is not None and names(pattern, device_name):
            return choice
    return None


def names(pattern: str, device_name: str) -> bool:
    """Whether a profile's regular expression is found in NVML's device name; ConfigError if it is not one."""
    try:
        return re.search(pattern, device_name) is not None
    except re.error as error:
        raise ConfigError("hardware.nvml_name", pattern, f"is not a regular expression: {error}") from error


def describe_present(devices: Sequence[DeviceLike]) -> str:
    """What is here, for an error that must say what was found: `found: no NVIDIA GPU; CPU …, 2 cores`."""
    gpus = ", ".join(_described(d) for d in devices) or "no NVIDIA GPU"
    return f"found: {gpus}; CPU {cpu_model()}, {cores_available()} cores"


def unmatched(devices: Sequence[DeviceLike]) -> str:
    """The way out where `match_profile` gave None."""
    name = devices[0].name
    return (
        f"no hardware profile matches the GPU {name!r}; write one (hardware/NAME.yaml in a folder given with "
        f"--config-dir, nvml_name: '^{name}$') and name it with hardware=NAME, or run hardware=cpu"
    )


def _described(device: DeviceLike) -> str:
    size = "" if device.memory_bytes is None else f" ({device.memory_bytes / GIB:.0f} GiB)"
    return device.name + size
