"""The shipped hardware profiles as objects, read without composing a job."""

from functools import cache
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from zbench.config import HardwareConfig

FOLDER = Path(__file__).parents[1] / "conf" / "hardware"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "auto"))


@cache
def profile(name: str) -> HardwareConfig:
    """The profile conf/hardware/`name`.yaml."""
    data = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    del data["defaults"]
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(HardwareConfig), data))
    assert isinstance(made, HardwareConfig)
    return made
