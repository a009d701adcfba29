"""From override strings to composed jobs: Hydra's grammar, with a grid in every choice of a group.

Composition itself is Hydra's. This module decides which combinations a sweep asks for, replaces
`auto` by what is here, and turns Hydra's errors into one line that names the key. It runs nothing.
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zbench.config import SCHEMAS, Config, check, register_schemas
from zbench.errors import ConfigError, OverrideError

CONFIG_NAME = "config"
GROUPS = (*SCHEMAS, "experiment")

NO_AXES = ("measure", "search", "executor", "sweep")  # they say how a sweep is run, not what

# What `auto` stands for, given the group and the choices made so far.
ResolveAuto = Callable[[str, dict[str, str]], str]


@dataclass(frozen=True)
class Job:
    """One composed configuration and the overrides that give it."""

    config: Config
    overrides: tuple[str, ...]


@dataclass
class Jobs:
    """What a command line asks for: jobs in grid order, and what the user should know about them."""

    jobs: list[Job] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def conf_dir() -> Path:
    """The folder of zbench's own configs: inside an installed package, else at the root of the checkout."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def profile_patterns(config_dir: str | None = None) -> dict[str, str | None]:
    """The `nvml_name` pattern of every choice of the hardware group, the user's own folder first."""
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
    """Hydra on zbench's configs; yields the overrides that add the user's own `config_dir`."""
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


def expand(
    overrides: list[str], resolve_auto: ResolveAuto, *, config_dir: str | None = None, grids: bool = True
) -> Jobs:
    """Every job that `overrides` ask for, duplicates collapsed.

    With `grids` (a sweep) each choice's own grid is added, and comma lists and ranges are axes;
    without (one run), choices stand at their defaults and an axis is an error. Raises OverrideError
    or ConfigError for anything that does not parse, compose or lie in range.
    """
    with hydra_session(config_dir) as extra, _one_line_errors():
        parsed = _parse(overrides)
        if not grids:
            for override in parsed:
                if override.is_sweep_override():
                    raise OverrideError(f"{override.input_line}: one run takes one value; use zbench sweep for several")
        return _Expansion(parsed, extra, resolve_auto, grids).jobs()


class _Expansion:
    """The state of one call of `expand`."""

    def __init__(self, parsed: list[Override], extra: list[str], resolve_auto: ResolveAuto, grids: bool) -> None:
        self.extra = extra
        self.resolve_auto = resolve_auto
        self.grids = grids
        self.groups: dict[str, list[str]] = {}
        self.values: dict[str, list[str]] = {}
        self.verbatim: list[str] = []  # deletions, hydra.*: composed as they are; `+` adds nothing to a closed schema
        for override in parsed:
            key = override.key_or_group
            if override.is_delete() or override.package or override.is_hydra_override():
                self.verbatim.append(str(override.input_line))
            elif key in GROUPS:
                self.groups[key] = _points(override)
            else:
                self.values[key] = _points(override)
            if key.split(".")[0] in NO_AXES and override.is_sweep_override():
                raise OverrideError(f"{override.input_line}: one value only; a sweep is measured and kept in one way")
        self.used: set[str] = set()

    def jobs(self) -> Jobs:
        found: dict[str, Job] = {}
        lacking: list[tuple[str, str, DictConfig]] = []
        for choices, base, values in self._combinations():
            kept = {}
            for key, points in values.items():
                if _has(base, key):
                    kept[key] = points
                    self.used.add(key)
                else:
                    lacking.append((key, _choice_of(key, dict(base.hydra.runtime.choices)), base))
            for job in self._product(choices, base, kept):
                found.setdefault(_identity(job.config), job)
        for key, choice, base in lacking:
            if key not in self.used:
                raise _unknown_key(key, self.values[key], base, choice, self._choices_with(key))
        notes = sorted({f"{key} is ignored for {choice}, which has no such key" for key, choice, _ in lacking})
        return Jobs(list(found.values()), notes)

    def _combinations(self) -> Iterator[tuple[dict[str, str], DictConfig, dict[str, list[str]]]]:
        """Every combination of group choices: its choices, its composed config, and the values asked of it."""
        for asked in _each(self.groups):
            cfg = self._compose(asked)
            asked = {**asked, **self._settled(dict(cfg.hydra.runtime.choices))}
            params = [f"{k}={v}" for k, v in (cfg.hydra.sweeper.get("params") or {}).items()]
            swept = _parse(params) if self.grids else []
            more = {
                o.key_or_group: _points(o) for o in swept if o.key_or_group in GROUPS and o.key_or_group not in asked
            }
            values = {o.key_or_group: _points(o) for o in swept if o.key_or_group not in GROUPS}
            for further in _each(more):
                choices = {**asked, **further}
                base = self._compose(choices)
                known = {k: v for k, v in values.items() if _has(base, k)}
                yield choices, base, {**known, **self.values}

    def _settled(self, choices: dict[str, str]) -> dict[str, str]:
        """What every `auto` among the choices stands for."""
        settled: dict[str, str] = {}
        for group in ("hardware", "pipeline"):  # the pipeline depends on the hardware
            if choices[group] == "auto":
                settled[group] = self.resolve_auto(group, {**choices, **settled})
        return settled

    def _choices_with(self, key: str) -> list[str]:
        """Choices of the key's group that have it."""
        group = key.split(".")[0]
        if group not in SCHEMAS:
            return []
        names = GlobalHydra.instance().config_loader().get_group_options(group)
        return [name for name in names if name != "auto" and _has(self._compose({group: name}), key)]

    def _compose(self, choices: dict[str, str]) -> DictConfig:
        overrides = [*self.extra, *self.verbatim, *(f"{group}={choice}" for group, choice in choices.items())]
        return compose(CONFIG_NAME, overrides=overrides, return_hydra_config=True)

    def _product(self, choices: dict[str, str], base: DictConfig, values: dict[str, list[str]]) -> Iterator[Job]:
        axes = dict(values)
        for group in SCHEMAS:
            if OmegaConf.is_missing(base, group):
                raise OverrideError(f"{group}: needs a choice, such as {group}=<name>; ~{group} takes it away")
        if self.grids:
            for group in SCHEMAS:
                grid = OmegaConf.select(base, f"{group}.grid") or {}
                for axis, expression in grid.items():
                    key = f"{group}.{axis}"
                    if not _has(base, key):
                        raise ConfigError(f"{group}.grid.{axis}", expression, f"{group} has no key {axis}")
                    axes.setdefault(key, _points(_parse([f"{key}={expression}"])[0]))
        for point in _each(axes):
            cfg = copy.deepcopy(base)
            for key, value in point.items():
                _assign(cfg, key, value)
            with_choices = [f"{group}={choice}" for group, choice in choices.items()]
            with_values = [f"{key}={value}" for key, value in point.items()]
            yield Job(_to_config(cfg), (*with_choices, *with_values))


def _parse(overrides: list[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()  # glob() asks it for a group's choices
    return OverridesParser.create(config_loader=loader).parse_overrides(overrides)


def _each(axes: dict[str, list[str]]) -> Iterator[dict[str, str]]:
    for point in itertools.product(*axes.values()):
        yield dict(zip(axes, point, strict=True))


def _points(override: Override) -> list[str]:
    """The values of an override as strings of Hydra's grammar: one, or those of a sweep."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise OverrideError(
            f"{override.input_line}: a grid needs listed values; use choice(...), range(...) or a comma list"
        )
    points = list(override.sweep_string_iterator())
    if not points:
        raise OverrideError(f"{override.input_line}: an empty sweep; give at least one value")
    return points


def _assign(cfg: DictConfig, key: str, value: str) -> None:
    try:
        OmegaConf.update(cfg, key, _parse([f"{key}={value}"])[0].value(), merge=True, force_add=True)
    except OmegaConfBaseException as error:
        raise ConfigError(key, value, str(error).splitlines()[0]) from error


def _to_config(cfg: DictConfig) -> Config:
    values = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    plain = OmegaConf.merge(OmegaConf.structured(Config), values)
    missing = OmegaConf.missing_keys(plain)
    if missing:
        raise ConfigError(sorted(missing)[0], "???", "needs a value")
    config = OmegaConf.to_object(plain)
    assert isinstance(config, Config)
    check(config)
    return config


def _identity(config: Config) -> str:
    """What makes two jobs the same: everything but the grids."""
    import json
    from dataclasses import asdict

    data: dict[str, Any] = asdict(config)
    for group in SCHEMAS:
        data[group].pop("grid", None)
    return json.dumps(data, sort_keys=True)


def _has(cfg: DictConfig, key: str) -> bool:
    """Whether a dotted key is there; keys of free dictionaries (`engine.options.x`) always are."""
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not OmegaConf.is_dict(node):
        return False
    return leaf in set(node) or parent.split(".")[-1] in ("options", "grid")


def _choice_of(key: str, choices: dict[str, str]) -> str:
    group = key.split(".")[0]
    return f"{group}={choices[group]}" if group in choices else group


def _unknown_key(key: str, points: list[str], base: DictConfig, choice: str, others: list[str]) -> OverrideError:
    asked = f"{key}={','.join(points)}"
    if others:
        group = key.split(".")[0]
        named = ", ".join(f"{group}={other}" for other in others)
        return OverrideError(f"{asked}: {choice} has no such key; these have: {named}")
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(base, parent) if parent else base
    owner = choice if parent else "a config"
    if not OmegaConf.is_dict(node):
        node, owner, parent, leaf = base, "a config", "", key.split(".")[0]
    known = [str(k) for k in node if k not in ("grid", "hydra")]
    near = get_close_matches(leaf, known, n=1)
    hint = f"did you mean {'.'.join(filter(None, [parent, near[0]]))}?" if near else f"{owner} has: {', '.join(known)}"
    return OverrideError(f"{asked}: unknown key; {hint}")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Hydra's and OmegaConf's errors as one OverrideError that keeps what they name."""
    try:
        yield
    except OverrideParseException as error:
        raise OverrideError(f"{error.override}: {str(error).splitlines()[0]}; see Hydra's override grammar") from error
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = ", ".join(error.options or ())
        raise OverrideError(f"{group}={choice}: no such choice; there are: {options or 'none'}") from error
    except yaml.YAMLError as error:
        raise OverrideError(f"a config is not YAML: {' '.join(str(error).split())}") from error
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines() if line.strip()]
        raise OverrideError(": ".join(lines[:2])) from error
