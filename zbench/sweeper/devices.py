"""How many devices a trial may have: what is here, or what `hardware.num_devices` says."""

from collections.abc import Callable, Mapping, Sequence

from zbench.config import HardwareConfig
from zbench.environment import DeviceLike
from zbench.errors import HardwareError
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
