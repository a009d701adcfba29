"""What a config value must be: the checks that every group's own are made of. Raises ConfigError that names the key."""

import functools
import math
import re
import unicodedata
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from zbench.errors import ConfigError

LONGEST_NAME = 128
"""Bytes of a name that becomes a file's name: file systems take 255, and zbench adds to it."""

_NAME = re.compile(r"\w[\w.-]*")

_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list, such as [0,1]",
    dict: "a dictionary",
}
"""Types, as users call them."""

_RANGE = "range"
"""Under which name a field's metadata hold its Range."""


@dataclass(frozen=True)
class Range:
    """From `least` to `most`, both included; `above` leaves `least` out. What is beyond is a slip of the hand."""

    least: float
    most: float
    above: bool = False

    def problem(self, value: float) -> str | None:
        """What is wrong with `value`, or None."""
        if self.above and value <= self.least:
            return f"must be above {self.least:g}"
        if value < self.least:
            return f"must be at least {self.least}"
        return f"must be at most {self.most}" if value > self.most else None


def number(default: Any, least: float, most: float, *, above: bool = False) -> Any:
    """The field of a number that lies from `least` to `most`; `check_numbers` holds it to that."""
    return field(default=default, metadata=within(least, most, above=above))


def within(least: float, most: float, *, above: bool = False) -> dict[str, Range]:
    """The metadata of a field whose number, or whose list of them, lies from `least` to `most`."""
    return {_RANGE: Range(least, most, above)}


def range_of(item: Any) -> Range | None:
    """The range of a dataclass's field, if it has one."""
    found = item.metadata.get(_RANGE)
    return found if isinstance(found, Range) else None


def one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    """`value` is one of `allowed`."""
    if value not in tuple(allowed):
        raise ConfigError(key, value, f"must be one of {', '.join(allowed)}")


def check_name(key: str, value: str, use: str) -> None:
    """`value` can be a file's name on any system, and part of a label; `use` says what it is."""
    if not _NAME.fullmatch(value):
        shown = value if value and value.isprintable() and " " not in value else repr(value)
        raise ConfigError(key, shown[:LONGEST_NAME], f"{use}: letters, digits, '_', '-' and '.'")
    if len(value.encode()) > LONGEST_NAME:
        shown = f"{value[:20]}…"
        raise ConfigError(key, shown, f"{use}: at most {LONGEST_NAME} bytes, and this has {len(value.encode())}")


def check_text(key: str, text: str) -> None:
    """`text` can be written, shown and read back: no control characters but line ends and tabs, no halves of one."""
    for char in text:
        if (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t\r") or char in "\ufffe\uffff":
            raise ConfigError(key, shortened(text), f"holds U+{ord(char):04X}, which is no text; leave it out")


def shortened(text: str, most: int = 60) -> str:
    """The beginning of a text, quoted for a message of one line."""
    return repr(text if len(text) <= most else f"{text[: most - 1]}…")


def check_types(node: object, path: str = "") -> None:
    """Hold every value to the type that its dataclass declares.

    OmegaConf does not, for elements of a list and for what a reference to another value leads to.
    """
    for name, hint in _hints(cast(Hashable, type(node))).items():
        _hold_type(getattr(node, name), hint, f"{path}.{name}".lstrip("."))


@functools.cache
def _hints(schema: Any) -> dict[str, Any]:
    return get_type_hints(schema)


def _hold_type(value: Any, hint: Any, key: str) -> None:
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        if value is None:
            return
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    kind = get_origin(hint) or hint
    if kind is Any:
        if is_dataclass(value):
            raise ConfigError(key, type(value).__name__, "is a whole group; name the values that are meant")
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, item in inner:
            _hold_type(item, Any, f"{key}.{name}")
        return
    takes: Any = (int, float) if kind is float else kind
    if not isinstance(value, takes) or (isinstance(value, bool) and kind is not bool):
        shown = shortened(str(value)) if isinstance(value, str) else shortened(repr(value))[1:-1]
        raise ConfigError(key, shown, f"must be {_KINDS.get(kind, f'a {kind.__name__}')}")
    if kind is list:
        for index, item in enumerate(value):
            _hold_type(item, get_args(hint)[0], f"{key}[{index}]")
    elif kind is dict:
        for name, item in value.items():
            _hold_type(item, get_args(hint)[1], f"{key}.{name}")
    elif is_dataclass(value):
        check_types(value, key)


def check_numbers(node: object, path: str) -> None:
    """Hold every number to the range of its field, and refuse NaN and infinity anywhere: no record could hold them."""
    if isinstance(node, float) and not math.isfinite(node):
        raise ConfigError(path, node, "must be a finite number")
    if is_dataclass(node):
        for item in fields(node):
            key, value = f"{path}.{item.name}".lstrip("."), getattr(node, item.name)
            check_numbers(value, key)
            _hold(key, value, range_of(item))
    elif isinstance(node, dict):
        for key, value in node.items():
            check_numbers(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check_numbers(value, f"{path}[{index}]")


def _hold(key: str, value: object, allowed: Range | None) -> None:
    if allowed is None:
        return
    for one in value if isinstance(value, list) else [value]:
        problem = allowed.problem(one) if isinstance(one, int | float) else None
        if problem is not None:
            raise ConfigError(key, value, problem)
