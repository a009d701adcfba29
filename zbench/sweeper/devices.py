"""How many devices a trial may have: what is here, or what `hardware.num_devices` says."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zbench.config import HardwareConfig
from zbench.environment import DeviceLike, device_of
from zbench.errors import ConfigError, HardwareError
from zbench.hardware.detect import describe_present, names
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial


def matching(nvml_name: str | None, devices: Sequence[DeviceLike]) -> list[DeviceLike]:
    """Of the GPUs here, those that a profile describes."""
    return [] if nvml_name is None else [device for device in devices if names(nvml_name, device.name)]


def check_devices(trial: Trial, hardware: HardwareConfig, devices: Sequence[DeviceLike] | None) -> None:
    """Raise HardwareError where a trial to be measured on GPUs is promised more of them than are here.

    `devices`, here and below, are those that a trial may have; None: nobody knows, so any number goes.
    """
    if devices is None:
        return
    asked, here = hardware.num_devices, len(matching(hardware.nvml_name, devices))
    if trial.hardware is None and trial.compute.device == "cuda" and asked is not None and asked > here:
        raise HardwareError(
            f"hardware.num_devices={asked}: of hardware={hardware.name} {here} are here ({describe_present(devices)}); "
            f"ask for {here} or fewer, or project with execution=project"
        )


def most_devices(trial: Trial, hardware: HardwareConfig, devices: Sequence[DeviceLike] | None) -> int | None:
    """How many a trial may have; None where any number goes: on a CPU's cores, or projected, with no number asked."""
    if hardware.num_devices is not None:
        return hardware.num_devices
    measured_on_gpus = trial.hardware is None and trial.compute.device == "cuda"
    return len(matching(hardware.nvml_name, devices)) if measured_on_gpus and devices is not None else None


def landed_elsewhere(trial: Trial, hardware: HardwareConfig | None, environment: Mapping[str, Any]) -> str | None:
    """The kind of GPU that a trial was measured on, where its `hardware` is another; None where that is right, or
    nobody can say."""
    pattern = None if hardware is None or trial.hardware is not None else hardware.nvml_name
    if trial.compute.device != "cuda" or pattern is None or not environment.get("devices"):
        return None
    there = [device["name"] for device in environment["devices"]]
    return None if all(names(pattern, name) for name in there) else device_of(environment)


def check_landed(trial: Trial, hardware: HardwareConfig | None, environment: Mapping[str, Any] | None) -> None:
    """Raise ConfigError where a trial was measured on another kind of GPU than its `hardware`."""
    device = None if environment is None else landed_elsewhere(trial, hardware, environment)
    if hardware is not None and device is not None:
        problem = f"{trial.label} was measured on {device}, which is not kept"
        way_out = (
            "ask for nodes that have it (executor.partition, executor.gpu_type), or set hardware.nvml_name to theirs"
        )
        raise ConfigError("hardware", hardware.name, f"{problem}; {way_out}")


def too_many(
    asked: Sequence[tuple[Trial, HardwareConfig]], devices: Sequence[DeviceLike] | None
) -> Callable[[Trial], str | None]:
    """Says why a trial has more devices than it may, or None; of a trial asked for twice the larger number counts."""
    most: dict[str, int | None] = {}
    for trial, hardware in asked:
        limit = most_devices(trial, hardware, devices)
        before = most.get(trial.trial_id, 0)
        most[trial.trial_id] = None if limit is None or before is None else max(limit, before)
    profiles: Mapping[str, HardwareConfig] = {trial.trial_id: hardware for trial, hardware in asked}

    def problem(trial: Trial) -> str | None:
        limit, needed = most.get(trial.trial_id), ParallelDims.of(trial.parallel).devices
        if limit is None or needed <= limit:
            return None
        hardware = profiles[trial.trial_id]
        if hardware.num_devices is not None:
            return f"{needed} devices: hardware.num_devices={limit} allows no more; raise it, or lower a degree"
        of = f"of hardware={hardware.name} {limit} {'is' if limit == 1 else 'are'} here"
        return f"{needed} devices: {of}; lower a degree, or project with execution=project"

    return problem
