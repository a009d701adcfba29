"""What a command line means on this machine: what `auto` stands for here, and the configuration of one trial."""

from zbench.composition import ResolveAuto, expand, profile_patterns
from zbench.config import Config
from zbench.errors import HardwareError
from zbench.hardware.detect import match_profile, present_devices, unmatched
from zbench.plugins import check_targets


def one_job(overrides: list[str], config_dir: str | None, *, allow_code: bool = False) -> Config:
    """The configuration of one trial.

    Raises OverrideError and its like for what does not compose, ConfigError for code from outside without permission.
    """
    config = expand(overrides, auto_resolver(config_dir), config_dir=config_dir, grids=False).jobs[0].config
    check_targets([config], allow_code=allow_code)
    return config


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
