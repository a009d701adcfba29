"""JSON from elsewhere: what is wrong is one line that names the field and its value."""

from dataclasses import dataclass, field

import pytest

from zbench.decode import Count, Seconds, check_untyped, plain, typed


@dataclass(frozen=True)
class Inner:
    name: str
    times_s: dict[str, Seconds] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    size: Count
    inner: Inner | None = None
    all: list[Inner] = field(default_factory=list)
    words: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON (Expecting property name"),
        ('{"a": NaN}', "not JSON (NaN is not allowed)"),
        ("1e999", "not JSON (Number out of range)"),
        ("[" * 100_000, "nested too deeply"),
        ('"\\ud800 half a pair"', "not JSON ("),
        (b"\xff", "not JSON ("),
        ("1" * 6000, "not JSON ("),
        ("{} {}", "not JSON (Extra data"),
    ],
)
def test_what_is_no_json_is_one_line(text: str | bytes, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        plain(text)
    assert says in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "size: is missing"),
        ({"size": "3"}, "size='3': expected int, got str"),
        ({"size": True}, "size=true: expected int, got bool"),
        ({"size": -1}, "size=-1: expected int >= 0"),
        ({"size": 2**63}, "size=9223372036854775808: expected int <= 9223372036854775807"),
        ({"size": 10**400}, "size=an integer of 1329 bits: expected int <= 9223372036854775807"),
        ({"size": 1, "sizes": 2}, "sizes: no such field"),
        ({"size": 1, "inner": {"nam": "x"}}, "inner.nam: no such field"),
        ({"size": 1, "all": [{"name": "x"}, {"name": "y", "z": 0}]}, "all.z: no such field"),
        ({"size": 1, "all": [{"name": "x"}, {"name": None}]}, "all[1].name=null: expected str, got null"),
        (
            {"size": 1, "inner": {"name": "x", "times_s": {"a": 1, "b": -1}}},
            "inner.times_s.b=-1: expected float >= 0.0",
        ),
        ({"size": 1, "words": ["a", 3]}, "words[1]=3: expected str, got int"),
        ([], "expected object, got array"),
    ],
)
def test_the_field_is_named_with_its_value(data: object, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        typed(Outer, data)
    assert str(caught.value) == says


def test_what_fits_becomes_what_is_declared() -> None:
    made = typed(Outer, {"size": 1, "inner": {"name": "x", "times_s": {"a": 1}}, "words": ["b"]})
    assert made == Outer(1, Inner("x", {"a": 1.0}), [], ("b",))


def test_another_revision_may_say_more_on_a_pipe() -> None:
    assert typed(Outer, {"size": 1, "new": 2}, ignore_unknown=True) == Outer(1)


def test_what_has_no_type_is_bounded() -> None:
    node: list[object] = []
    for _ in range(40):
        node = [node]
    with pytest.raises(ValueError, match="more than 32 levels"):
        check_untyped(node, "config")
    with pytest.raises(ValueError, match=r"config\.a\[1\]=9223372036854775808: must be an integer of 64 bits"):
        check_untyped({"a": [0, 2**63]}, "config")
