"""The jobs of one combination of group choices: every point of its axes as a typed, checked Config.

What Hydra composed is made typed once; a point is that with other values in place. Each value of an axis goes through
OmegaConf once, which converts and refuses. Where interpolations are left, each point is resolved by itself instead.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zbench.composition.grammar import Key, assignment, dotted
from zbench.composition.nodes import ABSENT, converted, get, put, replaced, value_at
from zbench.composition.typed import Axis
from zbench.config import Config, check
from zbench.errors import ConfigError, OverrideError


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


def points(base: DictConfig, axes: list[Axis], checked: dict[int, object]) -> Iterator[Made]:
    """Every point of `axes` on `base`, the last axis varying fastest.

    `checked` is what `zbench.config.check` knows of before. Raises ConfigError for a value that does not fit or lies
    out of range, OverrideError for one that did not arrive.
    """
    if _interpolates(base, axes):
        yield from _resolved(base, axes, checked)
    else:
        yield from _replaced(copy.deepcopy(base), axes, checked)


def _interpolates(base: DictConfig, axes: list[Axis]) -> bool:
    values = [value for axis in axes for point in axis.points for value in point.values()]
    return "${" in repr([OmegaConf.to_container(base, resolve=False), values])


def _resolved(base: DictConfig, axes: list[Axis], checked: dict[int, object]) -> Iterator[Made]:
    """Point by point: what one value refers to may be another's axis."""
    for point in itertools.product(*(axis.points for axis in axes)):
        cfg = copy.deepcopy(base)
        for values in point:
            for key, value in values.items():
                put(cfg, key, value)
        config = _to_object(cfg)
        for axis, values in zip(axes, point, strict=True):
            for key in values:
                node = get(cfg, key)
                _hold(axis.line, key, OmegaConf.to_object(node) if OmegaConf.is_config(node) else node, config)
        check(config, checked)
        yield Made(config, tuple(itertools.chain.from_iterable(map(_overrides, point))))


def _replaced(scratch: DictConfig, axes: list[Axis], checked: dict[int, object]) -> Iterator[Made]:
    """Typed values put into the one config; configs of a group that are the same are one object."""
    missing = OmegaConf.missing_keys(scratch)
    for axis in axes:  # what every point sets needs no value of its own
        for key, value in axis.points[0].items():
            if dotted(key) in missing and all(key in point for point in axis.points):
                put(scratch, key, value)
    origin = _to_object(scratch)
    ready = [[_converted(scratch, axis, index) for index in range(len(axis.points))] for axis in axes]
    groups: dict[str, list[int]] = {}  # group to its axes
    for number, axis in enumerate(axes):
        for name in {key[0]: None for key in axis.keys}:
            groups.setdefault(name, []).append(number)
    made: dict[tuple[str, tuple[int, ...]], Any] = {}

    def group(name: str, indices: tuple[int, ...]) -> Any:
        known = name, tuple(indices[number] for number in groups[name])
        if known not in made:
            made[known] = _group(origin, name, [(axes[n].line, ready[n][indices[n]]) for n in groups[name]])
        return made[known]

    for indices in itertools.product(*(range(len(axis.points)) for axis in axes)):
        config = replace(origin, **{name: group(name, indices) for name in groups})
        check(config, checked)
        overrides = (ready[number][index].overrides for number, index in enumerate(indices))
        yield Made(config, tuple(itertools.chain.from_iterable(overrides)))


def _group(origin: Config, name: str, asked: list[tuple[str, _Point]]) -> Any:
    """One group with the values of some points in place."""
    value = getattr(origin, name)
    for _, point in asked:
        for key, leaf in point.leaves:
            value = replaced(value, key[1:], leaf)
    for line, point in asked:
        for key, leaf in point.leaves:
            _hold(line, key, leaf, {name: value})
    return value


def _converted(scratch: DictConfig, axis: Axis, index: int) -> _Point:
    point = axis.points[index]
    return _Point(tuple((key, converted(scratch, key, value)) for key, value in point.items()), _overrides(point))


def _overrides(point: Any) -> tuple[str, ...]:
    return tuple(assignment(key, value) for key, value in point.items())


def _hold(line: str, key: Key, asked: object, config: object) -> None:
    """Raise OverrideError unless what was asked for is what was composed."""
    got = value_at(config, key)
    both_nan = isinstance(got, float) and isinstance(asked, float) and got != got and asked != asked
    if got is not asked and got != asked and not both_nan:
        was = f"{dotted(key)} is not there" if got is ABSENT else f"{dotted(key)}={got} was composed"
        raise OverrideError(f"{line}: did not arrive, {was}; --cfg job shows it, leave out what sets it again")


def _to_object(cfg: DictConfig) -> Config:
    missing = OmegaConf.missing_keys(cfg)
    if missing:
        raise ConfigError(sorted(missing)[0], "???", "needs a value")
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    return config
