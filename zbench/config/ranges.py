"""What a config value must be: the checks that every group's own are made of. Raises ConfigError that names the key."""

import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass

from zbench.errors import ConfigError


def one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    """`value` is one of `allowed`."""
    if value not in tuple(allowed):
        raise ConfigError(key, value, f"must be one of {', '.join(allowed)}")


def at_least(key: str, value: float, least: float) -> None:
    """`value` is `least` or more."""
    if value < least:
        raise ConfigError(key, value, f"must be at least {least}")


def finite(node: object, path: str) -> None:
    """Refuse NaN and infinity anywhere: no record could hold them."""
    if isinstance(node, float) and not math.isfinite(node):
        raise ConfigError(path, node, "must be a finite number")
    if is_dataclass(node):
        for item in fields(node):
            finite(getattr(node, item.name), f"{path}.{item.name}".lstrip("."))
    elif isinstance(node, dict):
        for key, value in node.items():
            finite(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            finite(value, f"{path}[{index}]")
