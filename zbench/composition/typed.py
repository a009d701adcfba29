"""What was typed: group choices, values, axes and deletions; two that decide the same key are an error.

A dict stands for its leaves, so `cache={max_warmup_steps:3}` is `cache.max_warmup_steps=3`. A list of dicts is one
axis whose points each set several keys.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep, Sweep

from zbench.composition.grammar import (
    Key,
    Text,
    assignment,
    dotted,
    hydra_value,
    leaves,
    overlap,
    repeated_key,
    unquoted,
)
from zbench.composition.limits import hold_range
from zbench.composition.prompts import SOURCES
from zbench.composition.session import group_options, one_line_errors, parse
from zbench.config import SCHEMAS
from zbench.config.ranges import shortened
from zbench.errors import OverrideError

GROUPS = (*SCHEMAS, "experiment")

NO_AXES = ("measure", "search", "executor", "sweep")  # they say how a sweep is run, not what

BLANKS = {("cache", "custom"), ("engine", "openai_images")}
"""Choices that say nothing without values of the user's: a glob leaves them out."""

Choice = str | tuple[str, ...] | None
Point = Mapping[Key, Any]


@dataclass(frozen=True)
class Choices:
    """The choices of one group that were typed; a list is Hydra's own, of experiments that are merged."""

    line: str  # as it was typed
    group: str
    names: tuple[Choice, ...]


@dataclass(frozen=True)
class Axis:
    """The points of one override. A single value is an axis of one point; a point of a dict list sets several keys."""

    line: str
    points: tuple[Point, ...]

    @property
    def keys(self) -> dict[Key, None]:
        """Every key that a point of it sets, in order."""
        return {key: None for point in self.points for key in point}

    @property
    def group(self) -> str:
        """The part of a config that it varies; all keys of an override share it."""
        return next(iter(self.keys))[0]

    def without(self, unwanted: Sequence[Key]) -> "Axis":
        """The axis of its other keys; points that are then the same collapse."""
        points: list[Point] = []
        for point in self.points:
            rest = {key: value for key, value in point.items() if key not in unwanted}
            if rest not in points:
                points.append(rest)
        return Axis(self.line, tuple(points))


@dataclass(frozen=True)
class Deletion:
    """A key that is taken away."""

    line: str
    key: Key
    only: tuple[Any, ...] = ()  # the value it must have, if one was typed


@dataclass(frozen=True)
class Verbatim:
    """What is left to Hydra as it is: deleted groups, packages, hydra.*."""

    line: str
    key: str  # without its value
    deletes: bool


Item = Choices | Axis | Deletion | Verbatim


@dataclass
class Typed:
    """A command line, read."""

    choices: dict[str, Choices] = field(default_factory=dict)
    axes: list[Axis] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    verbatim: list[Verbatim] = field(default_factory=list)

    def add(self, item: Item) -> None:
        """Keep an override, or a part of one."""
        match item:
            case Choices():
                self.choices[item.group] = item
            case Axis():
                self.axes.append(item)
            case Deletion():
                self.deletions.append(item)
            case Verbatim():
                self.verbatim.append(item)


def read(overrides: Sequence[Override], *, grids: bool = True) -> Typed:
    """What `overrides` ask for; without `grids` (one run) an axis is an error.

    Raises OverrideError for an axis where none can be, and for two overrides that decide the same key.
    """
    typed, decided = Typed(), list[_Claim]()
    for override in overrides:
        for item in _items(override, grids):
            claims, again = list(_claims(item)), 0
            for claim in claims:
                others = [other for other in decided if overlap(claim.key, other.key)]
                for other in others:
                    if (other.key, other.what) != (claim.key, claim.what):
                        raise _conflict(other, claim, grids)
                again += bool(others)
            if again < len(claims) or not claims:  # else it was typed before, and once is enough
                typed.add(item)
            decided += claims
    _hold_one_source(decided)
    return typed


def _hold_one_source(decided: Sequence["_Claim"]) -> None:
    """Raise OverrideError where several keys say what a workload paints."""
    named = {claim.key[1]: claim.line for claim in decided if claim.key[0] == "workload" and claim.key[1:2]}
    sources = [name for name in SOURCES if name in named]
    if len(sources) > 1:
        one, two = (shortened(named[name]) for name in sources[:2])
        raise OverrideError(f"{one} and {two}: both say what is painted; type one of them")


def overlay(common: Sequence[str], own: Sequence[str]) -> list[str]:
    """`common` and `own` together, where `own` takes the place of what `common` says of the same key.

    Raises OverrideError for what does not parse.
    """
    with one_line_errors():
        taken = [key for override in parse(list(own)) for key in _keys(override)]
        kept: list[str] = []
        for override in parse(list(common)):
            keys = _keys(override)
            left = [key for key in keys if not any(overlap(key, other) for other in taken)]
            if left == keys:
                kept.append(str(override.input_line))
            elif left:  # a dict of which some keys are taken
                values = dict(leaves(_key_of(override), unquoted(override.value())))
                kept += [assignment(key, values[key]) for key in left]
    return [*kept, *own]


def _items(override: Override, grids: bool) -> list[Item]:
    """What one override asks for: one thing, or each leaf of its dict."""
    line, key = str(override.input_line), _key_of(override)
    if override.is_hydra_override() and key != ("hydra.searchpath",):
        raise OverrideError(f"{line}: has no effect, as zbench runs its jobs itself; hydra.searchpath alone has one")
    if _is_hydras(override) or (override.is_delete() and override.key_or_group in GROUPS):
        return [Verbatim(line, dotted(key), override.is_delete())]
    if override.is_delete():
        return [Deletion(line, key, () if override.value_type is None else (unquoted(override.value()),))]
    twice = None if isinstance(override.value(), Text) else repeated_key(line.partition("=")[2])
    if twice is not None:
        raise OverrideError(f"{line}: {twice} stands there twice; give it once")
    sweeps = override.is_sweep_override()
    if sweeps:
        _may_be_an_axis(line, key, grids)
    points = _points(override)
    dicts = [isinstance(point, dict) for point in points]
    chooses = override.key_or_group in GROUPS
    if any(dicts) and not all(dicts):
        way = f"give {key[0]}=<name> and the dict as two overrides" if chooses else "list either values or dicts"
        raise OverrideError(f"{line}: {'a name' if chooses else 'a value'} beside a dict; {way}")
    if chooses and not any(dicts):
        return [Choices(line, key[0], tuple(_name(line, key[0], point) for point in points))]
    return [_axis(line, key, points)] if sweeps else [_leaf(line, *leaf, grids) for leaf in leaves(key, points[0])]


def _axis(line: str, key: Key, points: Sequence[Any]) -> Axis:
    """The axis of a list of values or dicts; a dict without a key leaves that as the choice has it."""
    axis = Axis(line, tuple({k: v for k, v in leaves(key, point) if v != {}} for point in points))
    if not axis.keys:
        raise OverrideError(f"{line}: names no key; give at least one, such as {dotted(key)}={{<key>:<value>}}")
    if any(isinstance(value, Sweep | Glob) for point in axis.points for value in point.values()):
        raise OverrideError(f"{line}: an axis within a list; list every point by its values")
    return _no_grid(axis)


def _leaf(line: str, key: Key, value: Any, grids: bool) -> Axis:
    """The axis of one leaf; in a dict it may itself be a list of values, `{height:choice(512,768)}`."""
    if not grids and key[1:2] == ("grid",):
        raise OverrideError(f"{line}: one run has no grid; use zbench sweep")
    if not isinstance(value, Sweep | Glob):
        return Axis(line, ({key: value},))
    _may_be_an_axis(line, key, grids)
    match value:
        case ChoiceSweep():
            return _axis(line, key, [unquoted(point) for point in value.list])
        case RangeSweep():
            hold_range(line, value)
            return _axis(line, key, list(value.range()))
    raise OverrideError(f"{line}: {dotted(key)} needs listed values; use choice(...) or range(...)")


def _no_grid(axis: Axis) -> Axis:
    for key in axis.keys:
        if key[1:2] == ("grid",):
            way = f"{key[0]}.{'.'.join(key[2:]) or '<key>'}=<value>,<value>"
            raise OverrideError(f"{axis.line}: a grid's axis is one quoted expression; type {way}")
    return axis


def _may_be_an_axis(line: str, key: Key, grids: bool) -> None:
    if not grids:
        raise OverrideError(f"{line}: one run takes one value; use zbench sweep for several")
    if key[0] in NO_AXES:
        raise OverrideError(f"{line}: one value only; a sweep is measured and kept in one way")


def _points(override: Override) -> list[Any]:
    """The values of an override: one, or those of a sweep."""
    if not override.is_sweep_override():
        return [unquoted(override.value())]
    if not override.is_discrete_sweep():
        raise OverrideError(
            f"{override.input_line}: a grid needs listed values; use choice(...), range(...) or a comma list"
        )
    value = override.value()
    if isinstance(value, RangeSweep):
        hold_range(str(override.input_line), value)
    points = [unquoted(point) for point in override.sweep_iterator()]
    if isinstance(override.value(), Glob):
        points = [point for point in points if (override.key_or_group, point) not in BLANKS]
    if not points:
        raise OverrideError(f"{override.input_line}: an empty sweep; give at least one value")
    return points


def _name(line: str, group: str, value: Any) -> Choice:
    """The choice that a group's value names."""
    if value is None and group != "experiment":
        raise OverrideError(f"{line}: needs a choice, such as {group}=<name>")
    if value == "???":  # to Hydra a choice that is still to be made
        raise OverrideError(f"{line}: no such choice; there are: {', '.join(group_options(group))}")
    if isinstance(value, list):
        names = tuple(str(name) for name in value)
        if group != "experiment":
            several = " tries each in turn" if len(names) > 1 else ""
            raise OverrideError(f"{line}: one choice, not a list; {group}={','.join(names) or '<name>'}{several}")
        return names
    if value is None:
        return None
    return value if isinstance(value, str) else hydra_value(value)


def _key_of(override: Override) -> Key:
    if _is_hydras(override):
        return (override.get_key_element().lstrip("+~"),)
    return tuple(override.key_or_group.split("."))


def _is_hydras(override: Override) -> bool:
    return override.package is not None or override.is_hydra_override()


def _keys(override: Override) -> list[Key]:
    """The keys that an override decides; a group's choice is none of its values."""
    key, value = _key_of(override), override.value()
    points = value.list if isinstance(value, ChoiceSweep) else [value]
    if _is_hydras(override) or (override.key_or_group in GROUPS and not any(isinstance(p, dict) for p in points)):
        return [_choice_key(dotted(key))]
    if override.is_delete() or override.is_sweep_override():
        return [key]
    return [leaf for leaf, _ in leaves(key, unquoted(value))]


@dataclass(frozen=True)
class _Claim:
    """What an item decides, for finding two that decide the same."""

    line: str
    key: Key
    what: tuple[object, ...]


def _claims(item: Item) -> Iterator[_Claim]:
    match item:
        case Choices():
            yield _Claim(item.line, _choice_key(item.group), item.names)
        case Verbatim():
            yield _Claim(item.line, _choice_key(item.key), (item.line,))
        case Deletion():
            yield _Claim(item.line, item.key, ("~", *map(hydra_value, item.only)))
        case Axis():
            spelled = [tuple((key, hydra_value(value)) for key, value in point.items()) for point in item.points]
            paired = len(item.keys) > 1
            for key in item.keys:
                what = (*spelled,) if paired else tuple(value for point in spelled for _, value in point)
                yield _Claim(item.line, key, what)
                if key[1:2] == ("grid",) and len(key) > 2:  # it decides that axis
                    yield _Claim(item.line, (key[0], *key[2:]), ("grid", *what))


def _choice_key(name: str) -> Key:
    return (f"{name}=",)


def _conflict(one: _Claim, other: _Claim, grids: bool) -> OverrideError:
    key = dotted(min(one.key, other.key, key=len)).rstrip("=")
    way = "type one of them"
    values = not any(claim.line.startswith("~") or "grid" in claim.what for claim in (one, other))
    may_be_axis = one.key == other.key and key.split(".")[0] in set(SCHEMAS) - set(NO_AXES)
    if grids and values and may_be_axis:
        way += f"; {key}=<value>,<value> tries each in turn"
    return OverrideError(f"{one.line} and {other.line}: both decide {key}; {way}")
