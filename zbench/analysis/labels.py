"""Names of trials, told apart where two trials share one; invents no other names."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from zbench.record import Record


def unique_labels(records: Sequence[Record]) -> list[str]:
    """A label each: the record's own, and where several share it also the config values that part them."""
    sharing: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        sharing[record.label].append(index)
    labels = [record.label for record in records]
    for indices in sharing.values():
        if len(indices) > 1:
            for index, suffix in zip(indices, _what_differs([records[i] for i in indices]), strict=True):
                labels[index] = f"{labels[index]} {suffix}"
    return labels


def flatten(node: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by dotted key; lists count as leaves."""
    if not isinstance(node, dict) or not node:
        return {path: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves.update(flatten(value, f"{path}.{key}".lstrip(".")))
    return leaves


def _what_differs(records: Sequence[Record]) -> list[str]:
    configs = [flatten(r.trial.to_dict()) for r in records]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
    telling = fewest_telling([key for key in differing if not isinstance(configs[0].get(key), list)], configs)
    suffixes = [" ".join(f"{key}={config.get(key)}" for key in telling) for config in configs]
    if len(set(suffixes)) < len(records):
        suffixes = [f"{s} {r.sweep}/{r.trial_id[:6]}".strip() for s, r in zip(suffixes, records, strict=True)]
    return suffixes


def fewest_telling(keys: Sequence[str], configs: Sequence[dict[str, Any]]) -> list[str]:
    """The first of `keys` that parts all `configs`; else up to three, each parting some that those before it do not."""

    def parted(chosen: Sequence[str]) -> int:
        return len({repr([config.get(key) for key in chosen]) for config in configs})

    alone = next((key for key in keys if parted([key]) == len(configs)), None)
    if alone is not None:
        return [alone]
    telling: list[str] = []
    for key in keys:
        if len(telling) < 3 and parted([*telling, key]) > parted(telling):
            telling.append(key)
    return telling
