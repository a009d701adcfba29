"""A key in a composed config and in a typed one: whether it is there, its value, another value in its place."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zbench.composition.grammar import FREE, Key, dotted, hydra_value
from zbench.errors import ConfigError

ABSENT = object()
"""What `get` and `value_at` say of a key that is not there."""


def get(cfg: Any, key: Key) -> Any:
    """The node or value at `key`, interpolations resolved; ABSENT if it is not there, `???` if it needs a value."""
    node = cfg
    for part in key:
        if isinstance(node, DictConfig) and part in set(node):
            node = "???" if OmegaConf.is_missing(node, part) else node[part]
        elif isinstance(node, ListConfig) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return ABSENT
    return node


def has(cfg: Any, key: Key) -> bool:
    """Whether a key may be given a value: it is there, or lies in a dictionary that takes any."""
    for end in range(2, len(key)):
        if key[end - 1] in FREE and isinstance(get(cfg, key[:end]), DictConfig):
            return True
    parent = get(cfg, key[:-1])
    if isinstance(parent, DictConfig):
        return key[-1] in set(parent)
    return get(cfg, key) is not ABSENT


NO_LIST = "is not a ListConfig, list or tuple."
"""What OmegaConf says of a value in a list's place."""


def put(cfg: DictConfig, key: Key, value: Any) -> None:
    """Give `key` a value, which OmegaConf converts to what the schema asks for.

    Raises ConfigError for a value that cannot be converted.
    """
    if value == "???":
        raise ConfigError(dotted(key), value, "needs a value")
    try:
        node: Any = cfg
        for part in key[:-1]:
            inner = get(node, (part,))
            if not isinstance(inner, DictConfig | ListConfig):  # in a free dictionary
                node[part] = {}
                inner = node[part]
            node = inner
        current = get(node, (key[-1],))
        if isinstance(current, ListConfig) and isinstance(value, list):
            current.merge_with(value)  # it replaces the list, and makes typed elements of dicts
        else:
            node[int(key[-1]) if isinstance(node, ListConfig) else key[-1]] = value
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        problem = "must be a list, such as [0,1]" if said.endswith(NO_LIST) else said
        raise ConfigError(dotted(key), hydra_value(value), problem) from error


def converted(cfg: DictConfig, key: Key, value: Any) -> Any:
    """What a value becomes at `key`: a plain or typed object. Leaves it there. Raises as `put` does."""
    put(cfg, key, value)
    node = get(cfg, key)
    return OmegaConf.to_object(node) if OmegaConf.is_config(node) else node


def replaced(node: Any, key: Key, value: Any) -> Any:
    """A copy of a typed config, dict or list with another value at `key`; the whole of it for an empty key."""
    if not key:
        return value
    part, rest = key[0], key[1:]
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{part: replaced(getattr(node, part), rest, value)})
    if isinstance(node, list):
        index = int(part)
        return [*node[:index], replaced(node[index], rest, value), *node[index + 1 :]]
    before = node if isinstance(node, dict) else {}
    return {**before, part: replaced(before.get(part, {}), rest, value)}


def value_at(node: Any, key: Key) -> Any:
    """The value of a typed config at `key`; ABSENT if there is none."""
    for part in key:
        if is_dataclass(node):
            node = getattr(node, part) if any(f.name == part for f in fields(node)) else ABSENT
        elif isinstance(node, Mapping):
            node = node.get(part, ABSENT)
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return ABSENT
    return node
