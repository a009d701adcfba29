"""What a command line means where its trials run: which devices they may have, what `auto` stands for there, and the
configuration of one trial."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from zbench.composition import ResolveAuto, expand, profile_patterns
from zbench.config import Config, ExecutorConfig
from zbench.environment import DeviceLike
from zbench.errors import ConfigError, HardwareError, OverrideError
from zbench.executors import devices_for
from zbench.hardware.detect import ANY_GPU, describe_present, match_profile, present_devices, unmatched
from zbench.methods import lora, quantization
from zbench.methods.parallel import every_split
from zbench.plugins import check_targets
from zbench.space import constraint
from zbench.sweeper.devices import matching
from zbench.sweeper.plan import trial_of
from zbench.trial import Trial, geometry_of


def one_job(overrides: list[str], config_dir: str | None, *, allow_code: bool = False) -> Config:
    """The configuration of one trial.

    Raises OverrideError and its like for what does not compose, ConfigError for code from outside without permission.
    """
    config = expand(overrides, auto_resolver(config_dir), config_dir=config_dir, grids=False).jobs[0].config
    check_targets([config], allow_code=allow_code)
    return config


def swept_jobs(overrides: list[str], config_dir: str | None, *, allow_code: bool = False) -> list[Config]:
    """The configurations that a sweep asks for on devices that nobody knows yet. Raises as `one_job` does."""

    def unknown() -> None:
        return None

    resolve, fill = auto_resolver(config_dir, unknown), partial(fill_grid, devices=unknown)
    jobs = expand(overrides, resolve, config_dir=config_dir, fill_grid=fill).jobs
    check_targets((job.config for job in jobs), allow_code=allow_code)
    return [job.config for job in jobs]


def one_trial(overrides: list[str], config_dir: str | None, *, allow_code: bool = False) -> Trial:
    """The trial that a command line names, projected where its hardware is not here; nothing is loaded.

    Raises OverrideError and its like for what does not compose or cannot work, ConfigError as `one_job` does.
    """
    config = one_job(overrides, config_dir, allow_code=allow_code)
    lora.check_used([config.pipeline])
    quantization.check_used([config.compute])
    trial = trial_of(config, present_devices())
    reason = constraint(trial, geometry_of(trial.pipeline))
    if reason is not None:
        raise OverrideError(reason)
    return trial


def chosen_executor(overrides: Sequence[str], config_dir: str | None) -> ExecutorConfig | None:
    """The executor that a command line chooses; None where no word of it may choose one, so that it is this machine's.

    Of several experiments the first counts: a sweep has one executor.
    """
    words = []
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key == "experiment":
            words.append(f"{word.partition('=')[0]}={value.partition(',')[0]}")
        elif key == "executor" or key.startswith("executor."):
            words.append(word)
    if not words:
        return None
    words += ["pipeline=zimage_tiny", "hardware=cpu"]
    return expand(words, lambda _, choices: "", config_dir=config_dir, grids=False).jobs[0].config.executor


def devices_there(executor: ExecutorConfig | None) -> Sequence[DeviceLike] | None:
    """The GPUs that a trial may have where that sends it: here, or on a cluster (`executors.devices_for`)."""
    return present_devices() if executor is None else devices_for(executor)


def auto_resolver(
    config_dir: str | None, devices: Callable[[], Sequence[DeviceLike] | None] | None = None
) -> ResolveAuto:
    """What `hardware=auto` and `pipeline=auto` stand for where `devices` are, by default on this machine.

    Of a cluster's devices the first counts; where nobody knows them, it is a GPU of whatever kind a trial gets.
    """

    def resolve(group: str, choices: dict[str, str]) -> str:
        patterns, hardware = profile_patterns(config_dir), choices["hardware"]
        if group == "pipeline":
            return "zimage_turbo" if hardware == ANY_GPU or patterns.get(hardware) is not None else "zimage_tiny"
        known = present_devices() if devices is None else devices()
        if known is None:
            return ANY_GPU
        name = match_profile(known, patterns)
        if name is None:
            raise HardwareError(unmatched(known))
        return name

    return resolve


def fill_grid(
    group: str,
    nvml_name: str | None,
    num_devices: int | None,
    *,
    devices: Callable[[], Sequence[DeviceLike] | None] | None = None,
) -> Sequence[Mapping[str, Any]]:
    """The points of a grid's axis that depends on the devices of the hardware: for `parallel`, every split of them.

    Without `num_devices` they are those of `devices`, by default of this machine; 1 on a CPU. Raises ConfigError where
    nobody can know how many there are, and for a group that has no such axis.
    """
    if group != "parallel":
        raise ConfigError(f"{group}.grid", "auto", "only an axis of parallel depends on the devices; list its points")
    if num_devices is None and nvml_name is not None:
        known = present_devices() if devices is None else devices()
        num_devices = len(matching(nvml_name, known or ()))
        if not num_devices:
            why = "nobody knows the GPUs of a job before it runs"
            why = why if known is None else f"that hardware is not here ({describe_present(known)})"
            raise ConfigError("hardware.num_devices", None, f"is needed by parallel=all, as {why}")
    return every_split(num_devices or 1)
