"""The trials that were asked for, as choices: which key is chosen first, and which keys there are to choose after that.

Example: `cache=none,dbcache` is first a choice of the method. None has nothing more to choose; DBCache has a choice of
warm-up and one of the threshold. So a union of grids is what it is, and every way through the choices ends at a trial.
It refuses to invent a value: choices are those that trials have.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from zbench.space import Space
from zbench.trial import Trial

NOT_THERE = "—"
"""The value of a key that another trial has and this one lacks."""

Value = str | int | float | bool


@dataclass(frozen=True)
class Choice:
    """One key and the values that it may have, in their order."""

    key: str
    values: tuple[Value, ...]

    @property
    def is_ordered(self) -> bool:
        """Whether the values are numbers, of which more than two say which way things go."""
        return len(self.values) > 2 and all(type(value) in (int, float) for value in self.values)


@dataclass(frozen=True)
class _Node:
    """One choice and what follows each of its values; at the end a trial's id."""

    choice: Choice
    following: tuple["_Node | str", ...]


class Points:
    """Of one space: the trials that were asked for, those that cannot work among them."""

    def __init__(self, space: Space) -> None:
        placed = [*space.placed, *(each for each, _ in space.pruned)]
        self.trials = {p.trial.trial_id: p.trial for p in placed if p.trial.trial_id in space.asked}
        self.pruned = {p.trial.trial_id: why for p, why in space.pruned if p.trial.trial_id not in space.equal_to}
        """Those that cannot work, and why; not those that another stands for."""
        self._equal_to = space.equal_to
        flat = {trial_id: dict(_flat(trial)) for trial_id, trial in sorted(self.trials.items())}
        keys = list(dict.fromkeys(key for values in flat.values() for key in values))
        self._root = _grown(flat, keys)
        self._paths = dict(_paths(self._root, {}))
        self.choices = list(dict.fromkeys(choice for path in self._paths.values() for choice in path))

    @property
    def runnable(self) -> list[str]:
        """Ids of the trials that can run, in an order that follows from themselves; of equal ones one."""
        return sorted({self.standing(i) for i in self.trials if self.standing(i) not in self.pruned})

    def standing(self, trial_id: str) -> str:
        """The trial that runs for this one: itself, or the one that it is known to be equal to."""
        return self._equal_to.get(trial_id, trial_id)

    def name(self, choice: Choice) -> str:
        """Its key; with its values where the key has others after another choice, for then it is another choice."""
        alone = all(other == choice for other in self.choices if other.key == choice.key)
        return choice.key if alone else f"{choice.key} of {', '.join(map(str, choice.values))}"

    def choose(self, pick: Callable[[Choice], int]) -> str:
        """The trial at the end of the way that `pick` takes: it is asked for the place of a value, choice by choice."""
        node = self._root
        while not isinstance(node, str):
            node = node.following[pick(node.choice)]
        return node

    def way_to(self, trial_id: str) -> Mapping[Choice, int]:
        """The choices that lead to a trial, and the place of the value in each. One that was not asked for and stands
        for others is come to by the first of these."""
        if trial_id not in self._paths:
            trial_id = next(asked for asked in sorted(self.trials) if self.standing(asked) == trial_id)
        return self._paths[trial_id]


def _flat(trial: Trial) -> Iterator[tuple[str, Value]]:
    """Every value of a trial by its key, `cache.max_warmup_steps`; lists and what has no schema as JSON."""
    for group in fields(trial):
        yield from _flat_value(group.name, getattr(trial, group.name))


def _flat_value(key: str, value: Any) -> Iterator[tuple[str, Value]]:
    if is_dataclass(value):
        for item in fields(value):
            if item.name != "grid":
                yield from _flat_value(f"{key}.{item.name}", getattr(value, item.name))
    elif isinstance(value, str | int | float):
        yield key, value
    elif value is None:
        yield key, "null"
    else:
        yield key, json.dumps(value, sort_keys=True, ensure_ascii=False, default=vars)


def _grown(flat: Mapping[str, Mapping[str, Value]], keys: Sequence[str]) -> _Node | str:
    """The choices that part these trials, by the first key that does. Trials that nothing parts are one."""
    for place, key in enumerate(keys):
        found: dict[Value, dict[str, Mapping[str, Value]]] = {}
        for trial_id, values in flat.items():
            found.setdefault(values.get(key, NOT_THERE), {})[trial_id] = values
        if len(found) > 1:
            ordered = tuple(sorted(found, key=lambda value: (isinstance(value, str), value)))
            return _Node(Choice(key, ordered), tuple(_grown(found[value], keys[place + 1 :]) for value in ordered))
    return next(iter(flat))


def _paths(node: _Node | str, way: Mapping[Choice, int]) -> Iterator[tuple[str, dict[Choice, int]]]:
    """Every trial and the choices that lead to it."""
    if isinstance(node, str):
        yield node, dict(way)
        return
    for place, following in enumerate(node.following):
        yield from _paths(following, {**way, node.choice: place})
