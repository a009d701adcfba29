"""Values and keys spelled in Hydra's override grammar, so that parsing gives them back."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType, QuotedString, ValueType

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./:@%+-]*")  # what Hydra's grammar takes as a string without quotes
NO_STRINGS = ("true", "false", "null", "nan", "inf")  # but these
PART = re.compile(r"[A-Za-z_][\w-]*|\d+")  # what may stand between the dots of a key

TEXT_KEYS = ("workload.prompt", "workload.negative_prompt")
"""Keys whose value is any text: what is typed after the `=` is the value, quotes and all."""

QUOTABLE_TEXT_KEYS = ("sweep.baseline",)
"""Keys whose value is text unless all of it is in quotes, or it is `null`: then it is Hydra's."""

PATH_KEYS = (
    *("pipeline.weights", "pipeline.vae", "workload.prompts_file", "measure.lpips_weights", "measure.clip_weights"),
    *("sweep.runs_dir", "sweep.reports_dir"),
)
"""Keys of files and folders: one path is read as it is where Hydra's grammar has no place for a character of it."""

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)

Key = tuple[str, ...]
"""A dotted key by its parts: a key of a free dictionary may itself hold a dot."""

FREE = ("options", "grid")  # dictionaries that take any key


class Text(str):
    """What was typed for a key of free text: no grammar reads it, and nothing in it refers to another value."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Without what it holds, which would look like a reference or a missing value."""
        return "Text()"


def path_override(word: str) -> Override | None:
    """The override of a word that gives a key one path, such as `~/模型`; None for what may be more."""
    key, _, value = word.partition("=")
    return (
        Override(OverrideType.CHANGE, key, ValueType.ELEMENT, Text(value), input_line=word)
        if (key in PATH_KEYS and value and not set(value) & set(",$'\""))
        else None
    )


def text_override(word: str) -> Override | None:
    """The override of a word that gives a key free text, None for any other word.

    A shell takes the quotes off `workload.prompt='a cat, 50 %'`, and Hydra knows no such value without them.
    """
    prefix = next((sign for sign in ("++", "+") if word.startswith(sign)), "")
    key, equals, value = word[len(prefix) :].partition("=")
    takes_quotes = key in QUOTABLE_TEXT_KEYS and (value in ("", "null") or _QUOTED.fullmatch(value))
    if not equals or takes_quotes or key not in (*TEXT_KEYS, *QUOTABLE_TEXT_KEYS):
        return None
    kind = {"++": OverrideType.FORCE_ADD, "+": OverrideType.ADD, "": OverrideType.CHANGE}[prefix]
    return Override(kind, key, ValueType.ELEMENT, Text(value), input_line=word)


def hydra_value(value: Any) -> str:
    """A value in Hydra's grammar, a string without quotes where it needs none."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in NO_STRINGS:
        return value
    return _element(value)


def assignment(key: Key, value: Any) -> str:
    """An override that gives `key` this value, also in Hydra itself: what may be new there is force-added."""
    simple = next((i for i, part in enumerate(key) if not PART.fullmatch(part)), len(key))
    for part in reversed(key[simple:]):
        value = {part: value}
    prefix = "++" if is_free(key) else ""
    return f"{prefix}{dotted(key[:simple])}={hydra_value(value)}"


def dotted(key: Key) -> str:
    """The key as it is typed."""
    return ".".join(key)


def is_free(key: Key) -> bool:
    """Whether a key lies in a dictionary that takes any."""
    return any(part in FREE for part in key[1:-1])


def overlap(one: Key, other: Key) -> bool:
    """Whether two keys are the same, or one lies within the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def leaves(key: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    """The values that a dict stands for, each with its key; what is no dict, or an empty one, stands for itself."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves((*key, name if isinstance(name, str) else _element(name)), inner)
    else:
        yield key, value


def unquoted(value: Any) -> Any:
    """A parsed value with plain strings for Hydra's quoted ones."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [unquoted(item) for item in value]
    if isinstance(value, dict):
        return {unquoted(key): unquoted(item) for key, item in value.items()}
    return value


def repeated_key(text: str) -> str | None:
    """A key that one dict of `text` holds twice; Hydra's parser would keep the last."""
    stack: list[tuple[str, list[str]]] = []  # the bracket, and for a dict the keys so far
    word, quote, index = "", "", 0
    while index < len(text):
        char = text[index]
        if char == "\\":
            word += text[index : index + 2]
            index += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "{[(":
            stack.append((char, []))
            word = ""
        elif char in "}])" and stack:
            stack.pop()
        elif char == ",":
            word = ""
        elif char == ":" and stack and stack[-1][0] == "{" and word.strip():
            keys = stack[-1][1]
            if word.strip() in keys:
                return word.strip()
            keys.append(word.strip())
            word = ""
        else:
            word += char
        index += 1
    return None


def _element(value: Any) -> str:
    """A value in Hydra's grammar, every string quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_element, value))}]"
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: item for f in fields(value) if (item := getattr(value, f.name)) != f.default}
    if isinstance(value, dict):
        return f"{{{','.join(f'{_key(k)}:{_element(v)}' for k, v in value.items())}}}"
    if isinstance(value, Text):
        value = literal(str(value))
    # A backslash stands for itself, except before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), str(value))
    return f"'{escaped}'"


def literal(value: Any) -> Any:
    """A value whose texts OmegaConf reads as they are (`${` refers to nothing); of a dataclass what is no default."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", value)
    if isinstance(value, list):
        return [literal(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: item for f in fields(value) if (item := getattr(value, f.name)) != f.default}
    return {key: literal(item) for key, item in value.items()} if isinstance(value, dict) else value


def _key(key: object) -> str:
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(key))
