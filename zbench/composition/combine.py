"""What Hydra composes for a combination of group choices, without composing every one of them.

A choice decides its own group and no other. So the choices of different groups are composed one at a time, and a
combination of them is put together. Where a choice turns out to change more than its group, combinations with it are
composed whole.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from zbench.composition.points import interpolates, typed_config
from zbench.composition.session import composed
from zbench.composition.typed import Choice

TOGETHER = ("experiment", "hardware", "pipeline")  # an experiment decides the rest, hardware what pipeline=auto is


@dataclass(frozen=True)
class Part:
    """One group as it was composed: `text` tells whether two are the same, `root` is the config that it is part of."""

    text: str
    root: DictConfig


@dataclass(frozen=True)
class Composed:
    """What a combination of choices gives."""

    parts: dict[str, Part]
    choices: dict[str, str | None]  # by group, as Hydra has them
    params: dict[str, Any] = field(default_factory=dict)  # axes that an experiment adds

    @property
    def interpolates(self) -> bool:
        """Whether values refer to others, so that groups cannot be put together."""
        return any(interpolates(part.text) for part in self.parts.values())


class Combiner:
    """Composes combinations of choices; each choice of a group once."""

    def __init__(self, verbatim: list[str]) -> None:
        """`verbatim` are overrides for Hydra that all combinations share."""
        self._verbatim = verbatim
        self._whole: dict[str, Composed] = {}
        self._first: dict[str, Mapping[str, Choice]] = {}

    def whole(self, choices: Mapping[str, Choice]) -> Composed:
        """As Hydra composes it. Raises Hydra's errors."""
        key = json.dumps(choices, sort_keys=True)
        if key not in self._whole:
            cfg = composed(self._verbatim, choices)
            chosen = dict(cfg.hydra.runtime.choices)
            params = dict(cfg.hydra.sweeper.get("params") or {})
            root = typed_config(cfg)
            plain = OmegaConf.to_container(root, resolve=False)
            assert isinstance(plain, dict)
            parts = {str(name): Part(repr(value), root) for name, value in plain.items()}
            self._whole[key] = Composed(parts, chosen, params)
        return self._whole[key]

    def combined(self, choices: Mapping[str, Choice]) -> Composed:
        """The same, put together from parts where that is the same. Raises Hydra's errors."""
        shared = json.dumps([[choices.get(group, "") for group in TOGETHER], sorted(choices)])
        first = self._first.setdefault(shared, choices)
        changed = [group for group in choices if first[group] != choices[group]]
        if len(changed) < 2:
            return self.whole(choices)
        base = self.whole(first)
        others = {group: self.whole({**first, group: choices[group]}) for group in changed}
        if base.interpolates or any(not _changes_only(group, base, other) for group, other in others.items()):
            return self.whole(choices)
        parts = {**base.parts, **{group: other.parts[group] for group, other in others.items()}}
        return Composed(parts, {**base.choices, **{g: o.choices[g] for g, o in others.items()}}, base.params)


def _changes_only(group: str, base: Composed, other: Composed) -> bool:
    same = all(other.parts[name].text == part.text for name, part in base.parts.items() if name != group)
    return same and other.params == base.params and not other.interpolates
