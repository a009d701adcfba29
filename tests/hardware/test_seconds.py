"""A projected time in parts: their sum, and how far it may be off."""

import math

import pytest

from zbench.config import SpreadConfig
from zbench.hardware.seconds import Parts, longest

NONE = SpreadConfig(**dict.fromkeys(SpreadConfig.__dataclass_fields__, 0.0))


def test_parts_are_off_independently_and_the_model_in_all_of_them():
    spread = SpreadConfig(**{**vars(NONE), "gemm": 0.3, "copy": 0.4, "model": 0.1})
    low, point, high = (Parts.of(gemm=1.0) + Parts.of(copy=1.0, gap=2.0)).range(spread)
    off = 1 + math.hypot(0.1, 0.3 / 4, 0.4 / 4)
    assert (low, point, high) == pytest.approx((4 / off, 4.0, 4 * off))


def test_the_same_part_twice_is_off_twice_as_far():
    spread = SpreadConfig(**{**vars(NONE), "gemm": 0.3})
    assert (Parts.of(gemm=1.0) * 2).range(spread).high == pytest.approx(2.6)
    assert (Parts.of(gemm=1.0) + Parts.of(gemm=1.0)).range(spread).high == pytest.approx(2.6)


def test_nothing_is_off_by_nothing():
    assert Parts().range(SpreadConfig()) == (0, 0, 0)
    assert Parts.of(gemm=1.0).range(NONE) == (1.0, 1.0, 1.0)


def test_of_what_happens_at_once_the_longest_counts_with_its_own_spread():
    assert longest(Parts.of(gemm=1.0, gap=0.5), Parts.of(host=1.4)).seconds == {"gemm": 1.0, "gap": 0.5}
    assert longest(Parts.of(gemm=1.0), Parts.of(host=1.4)).seconds == {"host": 1.4}
