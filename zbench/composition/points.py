"""The jobs of one combination of group choices: every point of its axes as a typed, checked Config.

What Hydra composed is made typed once; a point is that with other values in place. Each value of an axis goes through
OmegaConf once, which converts and refuses. Where interpolations are left, each point is resolved by itself instead.
"""

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zbench.composition.arrivals import with_arrivals
from zbench.composition.grammar import Key, Text, assignment, dotted
from zbench.composition.nodes import ABSENT, converted, get, put, replaced, value_at
from zbench.composition.prompts import with_prompts
from zbench.composition.typed import Axis, Point
from zbench.config import Config, WorkloadConfig, check
from zbench.config.ranges import check_types
from zbench.errors import ConfigError, OverrideError

WORDS = re.compile(r"[^\w.+-]+")
"""What parts the words of an override."""


def typed_config(composed: DictConfig) -> DictConfig:
    """What Hydra composed, held to the schema, with interpolations left as they are."""
    values = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    merged = OmegaConf.merge(OmegaConf.structured(Config), values)
    assert isinstance(merged, DictConfig)
    OmegaConf.set_struct(merged, False)  # free dictionaries take new keys; what has a schema refuses them still
    return merged


@dataclass(frozen=True)
class Made:
    """The job of one point, and the overrides that give its values."""

    config: Config
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class _Point:
    """One point of an axis: what it sets, each value as the schema has it, and the overrides that give it."""

    leaves: tuple[tuple[Key, Any], ...]
    overrides: tuple[str, ...]


class GroupPoints:
    """One group of a config: what it is at every point of its axes. Equal points are one object."""

    def __init__(self, name: str, cfg: DictConfig, axes: Sequence[Axis]) -> None:
        """`cfg` is used as a scratch pad. Raises ConfigError for a value that is missing or cannot be converted."""
        missing = _missing(cfg, name)
        for axis in axes:  # what every point sets needs no value of its own
            for key, value in axis.points[0].items():
                if dotted(key) in missing and all(key in point for point in axis.points):
                    put(cfg, key, value)
        _refuse(_missing(cfg, name))
        node = cfg[name]
        self.name = name
        self.origin = OmegaConf.to_object(node) if OmegaConf.is_config(node) else node
        self.lines = [axis.line for axis in axes]
        self.points = [[_converted(cfg, axis.line, point) for point in axis.points] for axis in axes]
        self._made: dict[tuple[int, ...], Any] = {}

    def at(self, indices: tuple[int, ...]) -> Any:
        """The group at one point of each of its axes. Raises OverrideError for a value that did not arrive."""
        if indices not in self._made:
            self._made[indices] = self._at(indices)
        return self._made[indices]

    def _at(self, indices: tuple[int, ...]) -> Any:
        asked = [self.points[axis][index] for axis, index in enumerate(indices)]
        value = self.origin
        for point in asked:
            for key, leaf in point.leaves:
                value = replaced(value, key[1:], leaf)
        for line, point in zip(self.lines, asked, strict=True):
            for key, leaf in point.leaves:
                _hold(line, key, leaf, {self.name: value})
        check_types(value, self.name)
        if isinstance(value, WorkloadConfig):
            return with_arrivals(with_prompts(value, [key for point in asked for key, _ in point.leaves]))
        return value


def replaced_points(
    groups: Mapping[str, GroupPoints], order: Sequence[tuple[str, int]], checked: dict[int, object]
) -> Iterator[Made]:
    """Every point of all groups' axes; `order` names them by group and number, and the last varies fastest.

    `checked` is what `zbench.config.check` knows of before. Raises ConfigError for a value that lies out of range.
    """
    places: dict[str, list[int]] = {}
    for place, (name, _) in enumerate(order):
        places.setdefault(name, []).append(place)
    fixed = {name: group.at(()) for name, group in groups.items() if name not in places}
    axes = [groups[name].points[number] for name, number in order]
    for indices in itertools.product(*(range(len(axis)) for axis in axes)):
        varied = {name: groups[name].at(tuple(indices[place] for place in where)) for name, where in places.items()}
        config = Config(**fixed, **varied)
        check(config, checked)
        overrides = (axis[index].overrides for axis, index in zip(axes, indices, strict=True))
        yield Made(config, tuple(itertools.chain.from_iterable(overrides)))


def interpolates(values: object) -> bool:
    """Whether plain values, as composed or as typed, refer to others."""
    return "${" in repr(values)


def resolved_points(base: DictConfig, axes: Sequence[Axis], checked: dict[int, object]) -> Iterator[Made]:
    """As `replaced_points`, point by point: what one value refers to may be another's axis.

    `base` is used as a scratch pad.
    """
    alike = all(point.keys() == axis.points[0].keys() for axis in axes for point in axis.points)
    may_miss = "???" in repr((OmegaConf.to_container(base), [axis.points for axis in axes]))
    for point in itertools.product(*(axis.points for axis in axes)):
        cfg = base if alike else copy.deepcopy(base)  # points of the same keys overwrite each other
        for values in point:
            for key, value in values.items():
                if not isinstance(value, Text):
                    put(cfg, key, value)
        if may_miss:
            _refuse(OmegaConf.missing_keys(cfg))
        config = OmegaConf.to_object(cfg)
        assert isinstance(config, Config)
        for axis, values in zip(axes, point, strict=True):
            for key, asked in values.items():
                if isinstance(asked, Text):
                    config = replaced(config, key, str(asked))
                    continue
                node = get(cfg, key)
                _hold(axis.line, key, OmegaConf.to_object(node) if OmegaConf.is_config(node) else node, config)
        check_types(config)
        workload = with_prompts(config.workload, [key for axis in axes for key in axis.keys])
        config = replace(config, workload=with_arrivals(workload))
        check(config, checked)
        yield Made(config, tuple(itertools.chain.from_iterable(map(_overrides, point))))


def _converted(scratch: DictConfig, line: str, point: Point) -> _Point:
    values = []
    for key, asked in point.items():
        if isinstance(asked, Text):
            values.append((key, str(asked)))
            continue
        values.append((key, converted(scratch, key, asked)))
        _keep_meaning(line, key, asked, values[-1][1])
    return _Point(tuple(values), _overrides(point))


def _keep_meaning(line: str, key: Key, asked: Any, got: Any) -> None:
    """Raise OverrideError where a conversion loses what was typed: `1.10` as the text `1.1`, 2 as true."""
    if isinstance(got, str) and isinstance(asked, bool | int | float) and got not in WORDS.split(line):
        raise OverrideError(f"{line}: {dotted(key)} is text, and this was read as {got}; put it in quotes")
    if isinstance(got, bool) and isinstance(asked, int | float) and asked not in (0, 1):
        raise OverrideError(f"{line}: {dotted(key)} is true or false, not {asked}")


def _overrides(point: Point) -> tuple[str, ...]:
    return tuple(assignment(key, value) for key, value in point.items())


def _missing(cfg: DictConfig, name: str) -> set[str]:
    if OmegaConf.is_missing(cfg, name):
        return {name}
    node = cfg[name]
    return set(OmegaConf.missing_keys(node)) if OmegaConf.is_config(node) else set()


def _refuse(missing: set[str]) -> None:
    if missing:
        raise ConfigError(min(missing), "???", "needs a value")


def _hold(line: str, key: Key, asked: object, config: object) -> None:
    """Raise OverrideError unless what was asked for is what was composed."""
    got = value_at(config, key)
    both_nan = isinstance(got, float) and isinstance(asked, float) and got != got and asked != asked
    if got is not asked and got != asked and not both_nan:
        was = f"{dotted(key)} is not there" if got is ABSENT else f"{dotted(key)}={got} was composed"
        raise OverrideError(f"{line}: did not arrive, {was}; --cfg job shows it, leave out what sets it again")
