"""What a command line means on this machine: what `auto` stands for here, and the configuration of one trial."""

from collections.abc import Mapping, Sequence
from typing import Any

from zbench.composition import ResolveAuto, expand, profile_patterns
from zbench.config import Config
from zbench.errors import ConfigError, HardwareError, OverrideError
from zbench.hardware.detect import describe_present, match_profile, present_devices, unmatched
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
    """The configurations that a sweep asks for. Raises as `one_job` does."""
    jobs = expand(overrides, auto_resolver(config_dir), config_dir=config_dir, fill_grid=fill_grid).jobs
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


def auto_resolver(config_dir: str | None) -> ResolveAuto:
    """What `hardware=auto` and `pipeline=auto` stand for on this machine."""

    def resolve(group: str, choices: dict[str, str]) -> str:
        patterns = profile_patterns(config_dir)
        if group == "pipeline":
            return "zimage_tiny" if patterns.get(choices["hardware"]) is None else "zimage_turbo"
        devices = present_devices()
        name = match_profile(devices, patterns)
        if name is None:
            raise HardwareError(unmatched(devices))
        return name

    return resolve


def fill_grid(group: str, nvml_name: str | None, num_devices: int | None) -> Sequence[Mapping[str, Any]]:
    """The points of a grid's axis that depends on the devices of the hardware: for `parallel`, every split of them.

    Without `num_devices` they are those that are here, 1 on a CPU. Raises ConfigError where nobody can know how many
    there are, and for a group that has no such axis.
    """
    if group != "parallel":
        raise ConfigError(f"{group}.grid", "auto", "only an axis of parallel depends on the devices; list its points")
    if num_devices is None and nvml_name is not None:
        devices = present_devices()
        num_devices = len(matching(nvml_name, devices))
        if not num_devices:
            problem = f"is needed by parallel=all, as that hardware is not here ({describe_present(devices)})"
            raise ConfigError("hardware.num_devices", None, problem)
    return every_split(num_devices or 1)
