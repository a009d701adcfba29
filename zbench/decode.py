"""JSON that comes from elsewhere, as plain data and as typed dataclasses; each fault is one line that names the field.

Types are those that the dataclasses declare, with the bounds of their annotations. It refuses what JSON does not know
(NaN, half a surrogate pair), what no reader could compute with (integers beyond 64 bits, endless nesting), and keys
that a dataclass lacks: a misspelt key must not vanish. Of a key that stands twice the last counts, as in other readers.
"""

import json
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, NoReturn, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from zbench.errors import one_line

T = TypeVar("T")
Check = Callable[[Any, str], str | None]

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
"""A duration, up to thirty years: sums of such are finite."""
Figure = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
"""A number of which sums and squares are finite."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of things, or a size in bytes."""
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
"""A dimension, or a number of things of which there is one at least."""
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer that tables of 64-bit numbers can hold."""

DEEPEST = 32
"""Levels of what has no declared type, such as an engine's options."""
SHOWN = 60
"""Characters of a value that a message shows."""


def plain(text: str | bytes) -> Any:
    """What a JSON text holds. Raises ValueError, in one line, for what is none."""
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("not JSON that can be read (it is nested too deeply)") from None
    except UnicodeError as error:
        raise ValueError(f"not JSON (not UTF-8: {one_line(error)})") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({_why_not(text) or one_line(error)})") from None


def typed(schema: type[T], data: Any, *, ignore_unknown: bool = False) -> T:
    """`data` as a dataclass. Raises ValueError naming the field, its value, and what it must be.

    `ignore_unknown` is for what another revision of zbench says on a pipe, which may say more.
    """
    unknown = None if ignore_unknown else _keys(cast(Any, schema))(data, "")
    if unknown is not None:
        raise ValueError(f"{unknown}: no such field")
    try:
        return msgspec.convert(data, schema)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except msgspec.ValidationError as error:
        raise ValueError(_named(one_line(error), schema, data)) from error


def check_untyped(node: Any, path: str, depth: int = 0) -> None:
    """Raise ValueError for what no declared type looks at and no reader could hold."""
    if isinstance(node, dict | list):
        if depth == DEEPEST:
            raise ValueError(f"{path}: nested more than {DEEPEST} levels deep")
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            if isinstance(value, dict | list | int):
                check_untyped(value, f"{path}.{key}" if isinstance(node, dict) else f"{path}[{key}]", depth + 1)
    elif isinstance(node, int) and not -(2**63) <= node < 2**63:
        raise ValueError(f"{path}={_shown(node)}: must be an integer of 64 bits")


@cache
def _keys(hint: Any) -> Check:
    """What names the first key of data that its dataclass lacks, by the path to it; None where there is none."""
    if is_dataclass(hint):
        hints = get_type_hints(hint, include_extras=True)
        below = {f.name: _keys(hints[f.name]) for f in fields(hint)}
        telling = {name: check for name, check in below.items() if check is not _nothing}
        known = frozenset(below)

        def of_object(data: Any, path: str) -> str | None:
            if type(data) is not dict:
                return None  # of another type, which the conversion says
            if not known.issuperset(data):
                return f"{path}{next(key for key in data if key not in known)!s:.{SHOWN}}"
            for name, check in telling.items():
                value = data.get(name)
                if value is not None and (found := check(value, f"{path}{name}.")) is not None:
                    return found
            return None

        return of_object
    inner = [_keys(arg) for arg in get_args(hint)] if get_origin(hint) is not Annotated else [_keys(get_args(hint)[0])]
    telling_inner = [check for check in inner if check is not _nothing]
    if not telling_inner:
        return _nothing
    (check,) = telling_inner
    if get_origin(hint) not in (list, tuple):
        return check  # of `X | None`

    def of_items(data: Any, path: str) -> str | None:
        if type(data) is not list:
            return None
        return next((found for item in data if (found := check(item, path)) is not None), None)

    return of_items


def _nothing(data: Any, path: str) -> str | None:
    return None


def _named(said: str, schema: Any, data: Any) -> str:
    """msgspec's words with the field first and its value: `window.requests[0].seed='x': expected int, got str`."""
    found = re.fullmatch(r"(.*?)(?: - at (?:`key` in )?`\$(.*)`)?", said)
    assert found is not None
    words, where = found[1].replace("`", ""), found[2] or ""
    words = words[:1].lower() + words[1:]
    path, value, hint = "", data, schema
    for name, index in re.findall(r"\.([^.\[]+)|\[([^\]]+)\]", where):
        hint = _present(hint)
        if index == "...":  # of a dict: which key it is, msgspec does not say
            hint = get_args(hint)[1] if get_origin(hint) is dict else Any
            name = next((key for key, item in value.items() if not _fits(item, hint)), None)
            if name is None:
                return f"{path}: {words}"  # it is a key itself that does not fit
            value = value[name]
        elif index:
            hint, value = get_args(hint)[0] if get_args(hint) else Any, value[int(index)]
        else:
            hint, value = get_type_hints(hint, include_extras=True).get(name, Any), value[name]
        path += f"[{index}]" if index and index != "..." else f".{str(name)[:SHOWN]}"
    path = path.lstrip(".")
    if words.startswith("object missing required field "):
        return f"{path}{'.' if path else ''}{words.rpartition(' ')[2]}: is missing"
    shown = "" if isinstance(value, dict | list) else f"={_shown(value)}"
    return f"{path}{shown}: {words}" if path else words


def _present(hint: Any) -> Any:
    """Of `X | None` the X, without what is annotated."""
    while get_origin(hint) is Annotated or type(None) in get_args(hint):
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    return hint


def _fits(item: object, hint: Any) -> bool:
    try:
        msgspec.convert(item, hint)
    except msgspec.ValidationError:
        return False
    return True


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**SHOWN:
        return f"an integer of {value.bit_length()} bits"
    spelled = {None: "null", True: "true", False: "false"} if value is None or isinstance(value, bool) else {}
    text = spelled.get(value) or repr(value[: 2 * SHOWN] if isinstance(value, str) else value)  # type: ignore[call-overload]
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _why_not(text: str | bytes) -> str | None:
    """What Python's own reader says of it, which names line and column; None where it has nothing to say."""
    try:
        json.loads(text if isinstance(text, str) else text.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        return None
    except ValueError as error:
        return one_line(error)
    return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")
