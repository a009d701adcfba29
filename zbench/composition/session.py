"""Hydra on zbench's configs: where they are, how one is composed, and its errors in one line."""

import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource  # Hydra reads files by no other
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zbench.composition.grammar import hydra_value, path_override, text_override
from zbench.composition.limits import hold_points
from zbench.composition.texts import read_text
from zbench.config import register_schemas
from zbench.config.ranges import shortened
from zbench.errors import OverrideError, one_line

CONFIG_NAME = "config"

_FOLDERS = re.compile(r"file://([^'\",\]]+)")

LONGEST_WORD = 2**17
"""Characters of one override: what a system takes as one word."""


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
                profile = yaml.safe_load(read_text(path))
            except (ValueError, RecursionError, yaml.YAMLError) as error:
                raise OverrideError(f"{path} is not YAML: {one_line(error)}") from error
            if not isinstance(profile, dict):
                raise OverrideError(f"{path} is not a hardware profile: it must map keys to values")
            if path.stem != "auto":
                found.setdefault(path.stem, profile.get("nvml_name"))
    return found


class TextConfigSource(FileConfigSource):
    """Hydra's source of config files: UTF-8 with or without its mark, and every error names its file."""

    def load_config(self, config_path: str) -> ConfigResult:
        """One file. Raises OverrideError for what is not UTF-8, no YAML or no map."""
        path = Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path))))
        text = read_text(path)
        try:
            config = OmegaConf.load(io.StringIO(text))
        except (ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
            raise OverrideError(f"{path} is not YAML: {one_line(error)}") from error
        if not isinstance(config, DictConfig):
            raise OverrideError(f"{path} is no config: it must map keys to values, and is a list")
        return ConfigResult(
            config=config,
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=self._get_header_dict(text[:512]),
        )


def read_configs_as_text() -> None:
    """Let Hydra read config files by `TextConfigSource`."""
    Plugins.instance()  # it registers its own sources once
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = TextConfigSource


@contextmanager
def hydra_session(config_dir: str | None) -> Iterator[list[str]]:
    """Hydra on zbench's configs; yields the overrides that add the user's own `config_dir`.

    Raises OverrideError for a folder that is not there.
    """
    register_schemas()
    read_configs_as_text()
    extra: list[str] = []
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise OverrideError(f"--config-dir {config_dir}: no such folder")
        extra = [f"hydra.searchpath={hydra_value([f'file://{folder}'])}"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield extra


def parse(overrides: list[str]) -> list[Override]:
    """Overrides in Hydra's grammar, and those of free text as they are.

    Raises OverrideError for a word that no grammar could read, else Hydra's errors; `one_line_errors` words them.
    """
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None  # glob() asks it for a group's choices
    parser = OverridesParser.create(config_loader=loader)
    return [text_override(word) or _parsed(parser, word) for word in map(readable, overrides)]


def _parsed(parser: OverridesParser, word: str) -> Override:
    """One override. Raises as `parse` does."""
    problem = None
    if len(word) > LONGEST_WORD:
        problem = f"{len(word):,} characters; at most {LONGEST_WORD:,}, put it in a file of --config-dir"
    elif any(unicodedata.category(char) == "Cc" and char not in "\n\t" for char in word):
        problem = "holds a control character; leave it out"
    if problem is not None:
        raise OverrideError(f"{shortened(word)}: {problem}")
    hold_points(shortened(word), word.count(",") + 1)  # parsing as many takes a minute
    try:
        return parser.parse_overrides([word])[0]
    except OverrideParseException:
        path = path_override(word)
        if path is None:
            raise
        return path
    except RecursionError as error:
        raise OverrideError(f"{shortened(word)}: brackets in brackets, too deep to be read; write fewer") from error
    except ValueError as error:  # a number of thousands of digits
        raise OverrideError(f"{shortened(word)}: cannot be read ({error})") from error


def readable(word: str) -> str:
    """`word`. Raises OverrideError for bytes that are no text: nothing could show them, or keep them in a record."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise OverrideError(f"{shortened(word)}: holds bytes that are not UTF-8; type it as UTF-8") from error
    return word


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
        said = str(error).splitlines()[0].removeprefix("LexerNoViableAltException: ")
        problem = (
            "is not written in Hydra's override grammar; quote its text" if error.override.startswith(said) else said
        )
        raise OverrideError(f"{error.override}: {problem}") from error
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        known = error.options or (group_options(group) if GlobalHydra.instance().is_initialized() else ())
        options = ", ".join(known)
        raise OverrideError(f"{group}={choice}: no such choice; there are: {options or 'none'}") from error
    except yaml.YAMLError as error:
        raise OverrideError(f"a config is not YAML: {one_line(error)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines() if line.strip()]
        if lines[0].startswith("You must specify '") and lines[1:2] == ["Available options:"]:
            group, known = lines[0].split("'")[1], str(error).split("Available options:")[1].split()
            raise OverrideError(f"{group}=???: no such choice; there are: {', '.join(known)}") from error
        raise OverrideError(": ".join(lines[:2])) from error


def check_search_path(overrides: Iterable[str]) -> None:
    """Raise OverrideError for a search path that is not there, or a package: Hydra would import that."""
    for override in overrides:
        for folder in _FOLDERS.findall(override) if override.lstrip("+").startswith("hydra.searchpath=") else ():
            if not Path(folder).is_dir():
                raise OverrideError(f"{override}: {folder}: no such folder")
        if "searchpath" in override and "pkg://" in override:
            raise OverrideError(
                f"{override}: a package on the search path would be imported, and is code from outside zbench; name "
                "its folder, with --config-dir or file://"
            )
