"""Which jobs a command line asks for: every combination of group choices, and in each the axes that are left to it.

An axis that was typed takes the place of an experiment's or a grid's axis of the same key. `auto` is replaced by what
is here. Whatever was typed is held against what was composed: what did not arrive is an error.
"""

import copy
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zbench.composition.combine import TOGETHER, Combiner, Composed, Part
from zbench.composition.grammar import FREE, Key, dotted, hydra_value, is_free, overlap
from zbench.composition.limits import hold_points
from zbench.composition.nodes import ABSENT, get, has, put
from zbench.composition.points import GroupPoints, interpolates, replaced_points, resolved_points
from zbench.composition.session import check_search_path, group_options, hydra_session, one_line_errors, parse
from zbench.composition.typed import Axis, Choice, Deletion, Typed, read
from zbench.composition.unknown import unknown_key
from zbench.config import SCHEMAS, Config
from zbench.config.hardware import MOST_DEVICES
from zbench.config.ranges import shortened
from zbench.errors import ConfigError, OverrideError

# What `auto` stands for, given the group and the choices made so far.
ResolveAuto = Callable[[str, dict[str, str]], str]

AUTO = "auto"
"""An axis of a grid that depends on the devices there are."""

FillGrid = Callable[[str, str | None, int | None], Sequence[Mapping[str, Any]]]
"""The points of such an axis, each as the group's keys and values, given the group, the hardware's `nvml_name`, and
`hardware.num_devices`."""


def no_grid_filled(group: str, _nvml_name: str | None, _num_devices: int | None) -> Sequence[Mapping[str, Any]]:
    """Where nobody asked which devices there are. Raises ConfigError."""
    raise ConfigError(f"{group}.grid", AUTO, "depends on the devices there are, and nobody looked; list its points")


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
    overrides: list[str],
    resolve_auto: ResolveAuto,
    *,
    config_dir: str | None = None,
    grids: bool = True,
    fill_grid: FillGrid = no_grid_filled,
) -> Jobs:
    """Every job that `overrides` ask for, duplicates collapsed.

    With `grids` (a sweep) each choice's own grid is added, and comma lists and ranges are axes; `fill_grid` knows the
    points of those that depend on the devices there are. Without (one run), choices stand at their defaults and an axis
    is an error. Raises OverrideError or ConfigError for anything that does not parse, compose, arrive or lie in range.
    """
    check_search_path(overrides)
    with hydra_session(config_dir) as extra, one_line_errors():
        return _Expansion(read(parse(overrides), grids=grids), extra, resolve_auto, fill_grid, grids).jobs()


@dataclass(frozen=True)
class _Group:
    """What one group of a combination is asked for, once what it lacks is left out."""

    cfg: DictConfig  # typed, with what was deleted taken out
    axes: list[tuple[tuple[int, int, int], Axis]]  # each with its place among the axes of a combination
    deleted: list[str]  # overrides
    lacking: list[tuple[Axis | Deletion, Key]]


class _Expansion:
    """The state of one call of `expand`."""

    def __init__(
        self, typed: Typed, extra: list[str], resolve_auto: ResolveAuto, fill_grid: FillGrid, grids: bool
    ) -> None:
        self.typed = typed
        self.combiner = Combiner([*extra, *(item.line for item in typed.verbatim)])
        self.resolve_auto = resolve_auto
        self.fill_grid = fill_grid
        self.grids = grids
        self.used: set[Key] = set()
        self.points = 0  # asked for so far, duplicates included
        self.lacking: dict[tuple[Key, str], tuple[Axis | Deletion, DictConfig]] = {}
        self.checked: dict[int, object] = {}
        self.digests: dict[int, tuple[object, str]] = {}  # of group configs by identity; holding them keeps that
        self.settled: dict[tuple[Choice, ...], dict[str, str]] = {}
        self.read: dict[str, Typed] = {}
        self.groups: dict[tuple[str, str, int, str], tuple[_Group, GroupPoints]] = {}

    def jobs(self) -> Jobs:
        found: dict[str, Job] = {}
        asked = self.typed.choices.values()
        lines = " ".join(choices.line for choices in asked)
        hold_points(shortened(lines), math.prod(len(choices.names) for choices in asked))
        for choices, composed, swept in self._combinations():
            for job in self._jobs_of(choices, composed, swept):
                found.setdefault(job.identity, job)
        for (key, choice), (item, cfg) in self.lacking.items():
            if key not in self.used:
                raise self._unknown(item, key, cfg, choice)
        notes = {f"{dotted(key)} is ignored for {choice}, which has no such key" for key, choice in self.lacking}
        return Jobs(list(found.values()), sorted(notes))

    def _combinations(self) -> Iterator[tuple[dict[str, Choice], Composed, Typed]]:
        """Every combination of group choices: the choices, what they compose to, and the axes their experiment adds."""
        for asked in _each({group: choices.names for group, choices in self.typed.choices.items()}):
            settled = {**asked, **self._settled(asked)}
            params = self.combiner.combined(settled).params if self.grids else {}
            swept = self._read(*(f"{key}={value}" for key, value in params.items()))
            more = {group: choices.names for group, choices in swept.choices.items() if group not in settled}
            for further in _each(more):
                choices = {**settled, **further}
                composed = self.combiner.combined(choices)
                self._hold_choices(settled, composed.choices)
                yield choices, composed, swept

    def _settled(self, asked: Mapping[str, Choice]) -> dict[str, str]:
        """What every `auto` that is then chosen stands for."""
        by = tuple(asked.get(group, "") for group in TOGETHER)
        if by not in self.settled:
            choices = {group: str(choice) for group, choice in self.combiner.whole(asked).choices.items()}
            settled: dict[str, str] = {}
            for group in ("hardware", "pipeline"):  # the pipeline depends on the hardware
                if choices.get(group) == "auto" and "hardware" in choices:
                    settled[group] = self.resolve_auto(group, {**choices, **settled})
            self.settled[by] = settled
        return self.settled[by]

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

    def _jobs_of(self, choices: Mapping[str, Choice], composed: Composed, swept: Typed) -> Iterator[Job]:
        for name in SCHEMAS:
            if composed.parts[name].text == "'???'":
                raise OverrideError(f"{name}: every job needs one, such as {name}=<name>; leave ~{name} out")
        if composed.interpolates or interpolates([axis.points for axis in (*swept.axes, *self.typed.axes)]):
            whole = copy.deepcopy(self.combiner.whole(choices).parts["pipeline"].root)
            groups = {name: self._asked_of(name, whole, swept) for name in composed.parts}
            axes = [axis for _, axis in sorted((a for g in groups.values() for a in g.axes), key=lambda a: a[0])]
            self._count(axes)
            points = resolved_points(whole, axes, self.checked)
        else:
            hardware = composed.parts["hardware"].text
            ready = {name: self._ready(name, part, swept, hardware) for name, part in composed.parts.items()}
            groups = {name: group for name, (group, _) in ready.items()}
            ranked = [(rank, name, n) for name, g in groups.items() for n, (rank, _) in enumerate(g.axes)]
            order = [(name, number) for _, name, number in sorted(ranked)]
            self._count([axis for group in groups.values() for _, axis in group.axes])
            points = replaced_points({name: made for name, (_, made) in ready.items()}, order, self.checked)
        self._note_lacking(composed, groups)
        first = [item.line for item in self.typed.verbatim]
        first += [f"{group}={hydra_value(choice)}" for group, choice in choices.items()]
        first += [line for group in groups.values() for line in group.deleted]
        for made in points:
            yield Job(made.config, (*first, *made.overrides), self._identity(made.config))

    def _count(self, axes: Sequence[Axis]) -> None:
        """Raise OverrideError if the points of a combination are more than a sweep takes, with those before it."""
        self.points += math.prod(len(axis.points) for axis in axes)
        longest = sorted(axes, key=lambda axis: -len(axis.points))[:3]
        hold_points(" ".join(shortened(axis.line, 40) for axis in longest), self.points)

    def _note_lacking(self, composed: Composed, groups: Mapping[str, _Group]) -> None:
        """Keep which keys these choices lack: a note, or an error if all do."""
        for name, group in groups.items():
            chosen = f"{name}={composed.choices[name]}" if name in composed.choices else name
            for item, key in group.lacking:
                self.lacking.setdefault((key, chosen), (item, group.cfg))
        typed: list[tuple[Axis | Deletion, Key]] = [(axis, key) for axis in self.typed.axes for key in axis.keys]
        typed += [(item, item.key) for item in self.typed.deletions]
        for item, key in typed:
            if key[0] not in groups:
                self.lacking.setdefault((key, key[0]), (item, groups["pipeline"].cfg))

    def _ready(self, name: str, part: Part, swept: Typed, hardware: str) -> tuple[_Group, GroupPoints]:
        """A group with its axes: made once, however many combinations it is part of.

        `hardware` is that group's text, for the axes that depend on it.
        """
        grid = get(part.root, (name, "grid"))
        typed = any(key[:2] == (name, "grid") for axis in self.typed.axes for key in axis.keys)
        depends = typed or (OmegaConf.is_dict(grid) and AUTO in grid.values())
        key = name, part.text, id(swept), hardware if depends else ""
        if key not in self.groups:
            group = self._asked_of(name, copy.deepcopy(part.root), swept)
            self.groups[key] = group, GroupPoints(name, group.cfg, [axis for _, axis in group.axes])
        return self.groups[key]

    def _asked_of(self, name: str, cfg: DictConfig, swept: Typed) -> _Group:
        """What was typed for a group of `cfg`, and what an experiment's axes and its own grid leave to it."""
        group = _Group(cfg, [], [], [])
        for item in self.typed.deletions:
            if item.key[0] == name:
                self._delete(item, group)
        asked = [key for axis in self.typed.axes for key in axis.keys]
        for place, axis in enumerate(swept.axes):
            left = _left(axis, [*asked, *(key for key in axis.keys if not has(cfg, key))])
            if left.keys and axis.group == name:
                group.axes.append(((0, place, 0), left))
        for place, axis in enumerate(self.typed.axes):
            left = self._typed_axis(axis, group) if axis.group == name else axis
            if left.keys and axis.group == name:
                group.axes.append(((1, place, 0), left))
        taken = [*asked, *(key for _, axis in group.axes for key in axis.keys)]
        number = list(cfg).index(name)
        axes = self._grid_axes(name, cfg, taken, [*swept.axes, *self.typed.axes])
        group.axes.extend(((2, number, place), axis) for place, axis in enumerate(axes))
        return group

    def _typed_axis(self, axis: Axis, group: _Group) -> Axis:
        """A typed axis without the keys that the group lacks; a grid that was typed is put in its place."""
        lacking = [key for key in axis.keys if not has(group.cfg, key)]
        group.lacking.extend((axis, key) for key in lacking)
        self.used.update(key for key in axis.keys if key not in lacking)
        left = _left(axis, lacking)
        for key, value in left.points[0].items() if len(left.points) == 1 else ():
            if value == {}:
                _hold_empty(left.line, key, get(group.cfg, key))
            if key[1:2] == ("grid",):
                put(group.cfg, key, value)
        return left

    def _delete(self, item: Deletion, group: _Group) -> None:
        """Take a key away, if the group has it."""
        node = get(group.cfg, item.key)
        if node is ABSENT:
            group.lacking.append((item, item.key))
            return
        if not is_free(item.key):
            inner = OmegaConf.is_dict(node) and item.key[-1] in FREE
            way = f"{item.line}.<key> takes one key of it away" if inner else "give it another value"
            raise OverrideError(f"{item.line}: {dotted(item.key)} is part of the schema and stays; {way}")
        if item.only and node != item.only[0]:
            raise OverrideError(f"{item.line}: {dotted(item.key)} is {node}; ~{dotted(item.key)} takes it away")
        del get(group.cfg, item.key[:-1])[item.key[-1]]
        group.deleted.append(item.line)
        self.used.add(item.key)

    def _grid_axes(self, group: str, cfg: DictConfig, taken: list[Key], typed: Sequence[Axis]) -> Iterator[Axis]:
        """The axes of a group's own grid that nothing else has taken the place of; `typed` are all that were asked."""
        grid = get(cfg, (group, "grid"))
        for name, expression in grid.items() if self.grids and OmegaConf.is_dict(grid) else ():
            if expression == AUTO:
                axes = [self._filled(f"{group}.grid.{name}={expression}", group, cfg, typed)]
            else:
                axes = self._read(f"{group}.{name}={expression}").axes
            for axis in axes:
                if not all(has(cfg, key) for key in axis.keys):
                    raise ConfigError(f"{group}.grid.{name}", expression, f"{group} has no key {name}")
                left = _left(axis, taken)
                if left.keys:
                    yield left

    def _filled(self, line: str, group: str, cfg: DictConfig, typed: Sequence[Axis]) -> Axis:
        """The axis that depends on the devices of the hardware, of the largest number of them that was asked for."""
        key = ("hardware", "num_devices")
        asked = [point[key] for axis in typed for point in axis.points if key in point] or [get(cfg, key)]
        known = [number for number in asked if isinstance(number, int)]
        most = max(known) if len(known) == len(asked) else None
        if any(isinstance(number, int) and not 1 <= number <= MOST_DEVICES for number in known):
            most = 1  # the check of the value says so
        points = self.fill_grid(group, get(cfg, ("hardware", "nvml_name")), most)
        return Axis(line, tuple({(group, name): value for name, value in point.items()} for point in points))

    def _identity(self, config: Config) -> str:
        return "".join(self._digest(getattr(config, item.name)) for item in fields(config))

    def _digest(self, group: Any) -> str:
        if id(group) not in self.digests:
            data = asdict(group) if is_dataclass(group) and not isinstance(group, type) else {"value": group}
            data.pop("grid", None)
            text = json.dumps(data, sort_keys=True, default=str)
            self.digests[id(group)] = group, hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.digests[id(group)][1]

    def _unknown(self, item: Axis | Deletion, key: Key, cfg: DictConfig, choice: str) -> OverrideError:
        """The error of a key that none of the choices asked for has."""
        names = [name for name in group_options(key[0]) if name != "auto"] if key[0] in SCHEMAS else []
        roots = {name: self.combiner.whole({key[0]: name}).parts[key[0]].root for name in names}
        others = [name for name, root in roots.items() if _may(item, root, key)]
        return unknown_key(item.line, key, cfg, choice, others, roots)


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
