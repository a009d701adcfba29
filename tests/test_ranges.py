"""Every number of a config has a lower and an upper bound, and one beyond it names the key."""

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest
from factories import trial

from zbench.config import SCHEMAS, SweepConfig, check
from zbench.config.ranges import range_of
from zbench.errors import ConfigError


def numbers() -> Iterator[tuple[str, Field[Any]]]:
    """Every field of a number, or of a list of them, with its group and name."""

    def of(schema: type, path: str) -> Iterator[tuple[str, Field[Any]]]:
        hints = get_type_hints(schema)
        for item in fields(schema):
            kinds = {hints[item.name], *get_args(hints[item.name])}
            if kinds & {int, float}:
                yield f"{path}.{item.name}", item
            for kind in kinds:
                if is_dataclass(kind) and isinstance(kind, type):
                    yield from of(kind, f"{path}.{item.name}")

    for group, schemas in {**SCHEMAS, "sweep": {"sweep": SweepConfig}}.items():
        for schema in schemas.values():
            yield from of(schema, group)


def test_every_number_has_its_range() -> None:
    found = dict(numbers())
    assert len(found) > 40
    assert [key for key, item in found.items() if range_of(item) is None] == []


@pytest.mark.parametrize("value", [10**30, -(10**30)])
def test_absurd_numbers_name_their_key(value: int) -> None:
    base = trial()
    for key, _ in numbers():
        group, _, name = key.partition(".")
        if group in ("pipeline", "parallel", "offload") and "." not in name:
            broken = replace(base, **{group: replace(getattr(base, group), **{name: value})})
            with pytest.raises(ConfigError, match=rf"{group}\.{name}={value}: must be at "):
                check(broken)
