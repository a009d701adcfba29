"""Names of trials, told apart where two trials share one; invents no other names."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from zbench.trial import Trial

MOST_TOLD = 5
"""Keys that a label is told apart by."""


def told_apart(labels: Sequence[str], trial: Callable[[int], Trial], otherwise: Callable[[int], str]) -> list[str]:
    """`labels`, and where several are equal also the config values that part their trials.

    `trial` and `otherwise` are asked by index and only where needed; `otherwise` parts what no value does.
    """
    sharing: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        sharing[label].append(index)
    told = list(labels)
    for indices in sharing.values():
        if len(indices) > 1:
            suffixes = _what_differs([trial(index) for index in indices])
            if len(set(suffixes)) < len(suffixes):
                pairs = zip(suffixes, indices, strict=True)
                suffixes = [f"{suffix} {otherwise(index)}".strip() for suffix, index in pairs]
            for index, suffix in zip(indices, suffixes, strict=True):
                told[index] = f"{told[index]} {suffix}".strip()
    return told


def flatten(node: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by dotted key; lists count as leaves."""
    if not isinstance(node, dict) or not node:
        return {path: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves.update(flatten(value, f"{path}.{key}".lstrip(".")))
    return leaves


def varying(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """For each trial the config values, by dotted key, that are not the same for all of them; every key in each."""
    seen: dict[str, set[str]] = {}
    have: Counter[str] = Counter()
    for trial in trials:
        leaves = flatten(trial.to_dict())
        have.update(leaves.keys())
        for key, value in leaves.items():
            found = seen.setdefault(key, set())
            if len(found) < 2:
                found.add(repr(value))
    keys = [key for key, found in seen.items() if len(found | ({"None"} if have[key] < len(trials) else set())) > 1]
    return [{key: leaves.get(key) for key in keys} for leaves in (flatten(trial.to_dict()) for trial in trials)]


def _what_differs(trials: Sequence[Trial]) -> list[str]:
    """For each trial the values that part it from others; nothing of a key that it has not, such as a server's flag."""
    configs, leaves = varying(trials), [flatten(trial.to_dict()) for trial in trials]
    keys = [key for key in configs[0] if _is_short(leaves[0].get(key)) and not _holds(key, configs[0])]
    telling = fewest_telling(keys, configs)
    return [" ".join(f"{key}={as_typed(own[key])}" for key in telling if key in own) for own in leaves]


def _is_short(value: Any) -> bool:
    """Whether a label has room for it: one value, or a few numbers such as seeds."""
    return not isinstance(value, list) or (len(value) <= MOST_TOLD and all(isinstance(each, int) for each in value))


def as_typed(value: object) -> str:
    """A value as an override has it, such as `null` and `true`."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _holds(key: str, keys: Iterable[str]) -> bool:
    """Whether others of the keys are inside it: then it is one only where it is empty."""
    return any(other.startswith(f"{key}.") for other in keys)


def fewest_telling(keys: Sequence[str], configs: Sequence[dict[str, Any]]) -> list[str]:
    """The first of `keys` that parts all `configs`; else a few, each parting some that those before it do not."""

    def parted(chosen: Sequence[str]) -> int:
        return len({repr([config.get(key) for key in chosen]) for config in configs})

    alone = next((key for key in keys if parted([key]) == len(configs)), None)
    if alone is not None:
        return [alone]
    telling: list[str] = []
    for key in keys:
        if len(telling) < MOST_TOLD and parted([*telling, key]) > parted(telling):
            telling.append(key)
    return telling
