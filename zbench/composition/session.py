"""Hydra on zbench's configs: where they are, how one is composed, and its errors in one line."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from zbench.composition.grammar import hydra_value
from zbench.config import register_schemas
from zbench.errors import OverrideError

CONFIG_NAME = "config"


def conf_dir() -> Path:
    """The folder of zbench's own configs: inside an installed package, else at the root of the checkout."""
    package = Path(__file__).parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def profile_patterns(config_dir: str | None = None) -> dict[str, str | None]:
    """The `nvml_name` pattern of every choice of the hardware group, the user's own folder first.

    Raises OverrideError for a file that is no profile.
    """
    folders = [Path(config_dir)] if config_dir else []
    found: dict[str, str | None] = {}
    for folder in (*folders, conf_dir()):
        for path in sorted((folder / "hardware").glob("*.yaml")):
            try:
                profile = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise OverrideError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
            if not isinstance(profile, dict):
                raise OverrideError(f"{path} is not a hardware profile: it must map keys to values")
            if path.stem != "auto":
                found.setdefault(path.stem, profile.get("nvml_name"))
    return found


@contextmanager
def hydra_session(config_dir: str | None) -> Iterator[list[str]]:
    """Hydra on zbench's configs; yields the overrides that add the user's own `config_dir`.

    Raises OverrideError for a folder that is not there.
    """
    register_schemas()
    extra: list[str] = []
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise OverrideError(f"--config-dir {config_dir}: no such folder")
        extra = [f"hydra.searchpath=['file://{folder}']"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield extra


def parse(overrides: list[str]) -> list[Override]:
    """Overrides in Hydra's grammar. Raises Hydra's errors; `one_line_errors` words them."""
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None  # glob() asks it for a group's choices
    return OverridesParser.create(config_loader=loader).parse_overrides(overrides)


def composed(verbatim: list[str], choices: Mapping[str, object]) -> DictConfig:
    """The config of some group choices. Raises Hydra's errors; `one_line_errors` words them."""
    overrides = [
        *verbatim,
        *(f"{group}={hydra_value(choice)}" for group, choice in choices.items() if choice is not None),
    ]
    try:
        return compose(CONFIG_NAME, overrides=overrides, return_hydra_config=True)
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # Hydra does not wrap all of its own
        raise OverrideError(f"{' '.join(overrides)}: Hydra cannot compose this: {error}") from error


def group_options(group: str) -> list[str]:
    """The names of a group's choices."""
    return list(GlobalHydra.instance().config_loader().get_group_options(group))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Hydra's and OmegaConf's errors as one OverrideError that keeps what they name."""
    try:
        yield
    except OverrideParseException as error:
        raise OverrideError(f"{error.override}: {str(error).splitlines()[0]}; see Hydra's override grammar") from error
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        known = error.options or (group_options(group) if GlobalHydra.instance().is_initialized() else ())
        options = ", ".join(known)
        raise OverrideError(f"{group}={choice}: no such choice; there are: {options or 'none'}") from error
    except yaml.YAMLError as error:
        raise OverrideError(f"a config is not YAML: {' '.join(str(error).split())}") from error
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines() if line.strip()]
        raise OverrideError(": ".join(lines[:2])) from error


def refuse_packages(overrides: Iterable[str]) -> None:
    """Raise OverrideError for a search path that is a package: Hydra would import it, and with it code from outside."""
    for override in overrides:
        if "searchpath" in override and "pkg://" in override:
            raise OverrideError(
                f"{override}: a package on the search path would be imported, and is code from outside zbench; name "
                "its folder, with --config-dir or file://"
            )
