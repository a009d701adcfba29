"""Which jobs a command line asks for: every combination of group choices, and in each the axes that are left to it.

An axis that was typed takes the place of an experiment's or a grid's axis of the same key. `auto` is replaced by what
is here. Whatever was typed is held against what was composed: what did not arrive is an error.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zbench.composition.grammar import FREE, Key, dotted, hydra_value, is_free, overlap
from zbench.composition.nodes import ABSENT, get, has, put
from zbench.composition.points import points, typed_config
from zbench.composition.session import composed, group_options, hydra_session, one_line_errors, parse
from zbench.composition.typed import Axis, Choice, Deletion, Typed, read
from zbench.composition.unknown import unknown_key
from zbench.config import SCHEMAS, Config
from zbench.errors import ConfigError, OverrideError

# What `auto` stands for, given the group and the choices made so far.
ResolveAuto = Callable[[str, dict[str, str]], str]


@dataclass(frozen=True)
class Job:
    """One composed configuration and the overrides that give it."""

    config: Config
    overrides: tuple[str, ...]
    identity: str
    """The same for two jobs that differ in nothing but grids, and whatever order things were typed in."""


@dataclass
class Jobs:
    """What a command line asks for: jobs in grid order, and what the user should know about them."""

    jobs: list[Job] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def expand(
    overrides: list[str], resolve_auto: ResolveAuto, *, config_dir: str | None = None, grids: bool = True
) -> Jobs:
    """Every job that `overrides` ask for, duplicates collapsed.

    With `grids` (a sweep) each choice's own grid is added, and comma lists and ranges are axes;
    without (one run), choices stand at their defaults and an axis is an error. Raises OverrideError
    or ConfigError for anything that does not parse, compose, arrive or lie in range.
    """
    with hydra_session(config_dir) as extra, one_line_errors():
        return _Expansion(read(parse(overrides), grids=grids), extra, resolve_auto, grids).jobs()


@dataclass(frozen=True)
class _Combination:
    """One combination of group choices, its composed config, and the axes that its experiment adds."""

    choices: dict[str, Choice]
    composed: DictConfig
    axes: list[Axis]

    def choice_of(self, key: Key) -> str:
        """What was chosen for the key's group, as it is typed."""
        choices = self.composed.hydra.runtime.choices
        return f"{key[0]}={choices[key[0]]}" if key[0] in choices else key[0]


class _Expansion:
    """The state of one call of `expand`."""

    def __init__(self, typed: Typed, extra: list[str], resolve_auto: ResolveAuto, grids: bool) -> None:
        self.typed = typed
        self.verbatim = [*extra, *(item.line for item in typed.verbatim)]
        self.resolve_auto = resolve_auto
        self.grids = grids
        self.used: set[Key] = set()
        self.lacking: list[tuple[Axis | Deletion, Key, _Combination]] = []
        self.checked: dict[int, object] = {}
        self.digests: dict[int, tuple[object, str]] = {}  # of group configs by identity; holding them keeps that
        self.composed: dict[str, DictConfig] = {}
        self.settled: dict[tuple[Choice, ...], dict[str, str]] = {}
        self.read: dict[str, Typed] = {}

    def jobs(self) -> Jobs:
        found: dict[str, Job] = {}
        for combination in self._combinations():
            for job in self._jobs_of(combination):
                found.setdefault(job.identity, job)
        for item, key, combination in self.lacking:
            if key not in self.used:
                raise self._unknown(item, key, combination)
        notes = {
            f"{dotted(key)} is ignored for {combination.choice_of(key)}, which has no such key"
            for _, key, combination in self.lacking
        }
        return Jobs(list(found.values()), sorted(notes))

    def _combinations(self) -> Iterator[_Combination]:
        for asked in _each({group: choices.names for group, choices in self.typed.choices.items()}):
            settled = {**asked, **self._settled(asked)}
            params = self._compose(settled).hydra.sweeper.get("params") or {}
            swept = self._read(*(f"{key}={value}" for key, value in params.items())) if self.grids else Typed()
            more = {group: choices.names for group, choices in swept.choices.items() if group not in settled}
            for further in _each(more):
                choices = {**settled, **further}
                base = self._compose(choices)
                self._hold_choices(settled, dict(base.hydra.runtime.choices))
                yield _Combination(choices, base, swept.axes)

    def _settled(self, asked: Mapping[str, Choice]) -> dict[str, str]:
        """What every `auto` that is then chosen stands for."""
        by = tuple(asked.get(group, "") for group in ("experiment", "hardware", "pipeline"))
        if by not in self.settled:
            choices = dict(self._compose(asked).hydra.runtime.choices)
            settled: dict[str, str] = {}
            for group in ("hardware", "pipeline"):  # the pipeline depends on the hardware
                if choices.get(group) == "auto":
                    settled[group] = self.resolve_auto(group, {**choices, **settled})
            self.settled[by] = settled
        return self.settled[by]

    def _compose(self, choices: Mapping[str, Choice]) -> DictConfig:
        key = json.dumps(choices)
        if key not in self.composed:
            self.composed = {key: composed(self.verbatim, choices)}  # only the last is asked for again
        return self.composed[key]

    def _read(self, *lines: str) -> Typed:
        """Axes of a config file: they are read once, however often they are asked for."""
        key = "\n".join(lines)
        if key not in self.read:
            self.read[key] = read(parse(list(lines)))
        return self.read[key]

    def _hold_choices(self, wanted: Mapping[str, Choice], got: Mapping[str, str | None]) -> None:
        """Raise OverrideError for a typed choice that is not what Hydra composed."""
        for group, typed in self.typed.choices.items():
            if not isinstance(wanted[group], tuple) and got.get(group) != wanted[group]:
                was = f"{group}={hydra_value(got.get(group))} was composed"
                raise OverrideError(f"{typed.line}: did not arrive, {was}; leave out what chooses again")
        for item in self.typed.verbatim:
            if item.deletes and got.get(item.key) is not None:
                was = f"{item.key}={got[item.key]} was composed"
                raise OverrideError(f"{item.line}: did not arrive, {was}; leave out what chooses again")

    def _jobs_of(self, combination: _Combination) -> Iterator[Job]:
        for group in SCHEMAS:
            if OmegaConf.is_missing(combination.composed, group):
                raise OverrideError(f"{group}: needs a choice, such as {group}=<name>; ~{group} takes it away")
        cfg = typed_config(combination.composed)
        deleted = [item.line for item in self.typed.deletions if self._delete(cfg, item, combination)]
        asked = [key for axis in self.typed.axes for key in axis.keys]
        typed = self._typed_axes(cfg, combination)
        swept = [_left(axis, [*asked, *(key for key in axis.keys if not has(cfg, key))]) for axis in combination.axes]
        axes = [axis for axis in (*swept, *typed) if axis.keys]
        axes += self._grid_axes(cfg, [*asked, *(key for axis in axes for key in axis.keys)])
        chosen = [f"{group}={hydra_value(choice)}" for group, choice in combination.choices.items()]
        first = (*(item.line for item in self.typed.verbatim), *chosen, *deleted)
        for made in points(cfg, axes, self.checked):
            yield Job(made.config, (*first, *made.overrides), self._identity(made.config))

    def _typed_axes(self, cfg: DictConfig, combination: _Combination) -> list[Axis]:
        """What was typed, without the keys that these choices lack; a grid that was typed is put in its place."""
        kept = []
        for axis in self.typed.axes:
            lacking = [key for key in axis.keys if not has(cfg, key)]
            self.lacking += [(axis, key, combination) for key in lacking]
            self.used.update(key for key in axis.keys if key not in lacking)
            kept.append(axis := _left(axis, lacking))
            for key, value in axis.points[0].items() if len(axis.points) == 1 else ():
                if value == {}:
                    _hold_empty(axis.line, key, get(cfg, key))
                if key[1:2] == ("grid",):
                    put(cfg, key, value)
        return kept

    def _delete(self, cfg: DictConfig, item: Deletion, combination: _Combination) -> bool:
        """Take a key away, if these choices have it."""
        node = get(cfg, item.key)
        if node is ABSENT:
            self.lacking.append((item, item.key, combination))
            return False
        if not is_free(item.key):
            inner = OmegaConf.is_dict(node) and item.key[-1] in FREE
            way = f"{item.line}.<key> takes one key of it away" if inner else "give it another value"
            raise OverrideError(f"{item.line}: {dotted(item.key)} is part of the schema and stays; {way}")
        if item.only and node != item.only[0]:
            raise OverrideError(f"{item.line}: {dotted(item.key)} is {node}; ~{dotted(item.key)} takes it away")
        del get(cfg, item.key[:-1])[item.key[-1]]
        self.used.add(item.key)
        return True

    def _grid_axes(self, cfg: DictConfig, taken: list[Key]) -> list[Axis]:
        """The axes of the choices' own grids that nothing else has taken the place of."""
        axes: list[Axis] = []
        for group in SCHEMAS if self.grids else ():
            grid = get(cfg, (group, "grid"))
            for name, expression in grid.items() if OmegaConf.is_dict(grid) else ():
                for axis in self._read(f"{group}.{name}={expression}").axes:
                    if not all(has(cfg, key) for key in axis.keys):
                        raise ConfigError(f"{group}.grid.{name}", expression, f"{group} has no key {name}")
                    left = _left(axis, taken)
                    axes += [left] if left.keys else []
        return axes

    def _identity(self, config: Config) -> str:
        return "".join(self._digest(getattr(config, item.name)) for item in fields(config))

    def _digest(self, group: Any) -> str:
        if id(group) not in self.digests:
            data = asdict(group) if is_dataclass(group) and not isinstance(group, type) else {"value": group}
            data.pop("grid", None)
            text = json.dumps(data, sort_keys=True, default=str)
            self.digests[id(group)] = group, hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.digests[id(group)][1]

    def _unknown(self, item: Axis | Deletion, key: Key, combination: _Combination) -> OverrideError:
        """The error of a key that none of the choices asked for has."""
        names = group_options(key[0]) if key[0] in SCHEMAS else []
        others = [name for name in names if name != "auto" and _may(item, self._compose({key[0]: name}), key)]
        return unknown_key(item.line, key, combination.composed, combination.choice_of(key), others)


def _each(axes: Mapping[str, tuple[Choice, ...]]) -> Iterator[dict[str, Choice]]:
    for point in itertools.product(*axes.values()):
        yield dict(zip(axes, point, strict=True))


def _left(axis: Axis, taken: list[Key]) -> Axis:
    """An axis without the keys that something else decides, or that are not there."""
    gone = [key for key in axis.keys if any(overlap(key, other) for other in taken)]
    return axis.without(gone) if gone else axis


def _may(item: Axis | Deletion, cfg: DictConfig, key: Key) -> bool:
    """Whether a config has what an override changes; only what is there can be taken away."""
    return get(cfg, key) is not ABSENT if isinstance(item, Deletion) else has(cfg, key)


def _hold_empty(line: str, key: Key, node: Any) -> None:
    """Raise OverrideError for an empty dict that would be merged into a full one and change nothing."""
    if not OmegaConf.is_dict(node) or not node:
        return
    first = dotted((*key, str(next(iter(node)))))
    way = f"~{first} takes a key away" if key[-1] in FREE else f"name a key: {dotted(key)}={{<key>:<value>}}"
    raise OverrideError(f"{line}: an empty dict is merged into what is there and changes nothing; {way}")
