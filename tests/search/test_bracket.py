"""Bisection ends at what was seen to hold, also where what holds does not end at one number."""

import pytest

from zbench.search.bracket import bracket


@pytest.mark.parametrize(
    ("tried", "ends"),
    [
        ({}, (None, None)),
        ({3: True, 5: False}, (3, 5)),
        ({3: True, 5: False, 4: False, 6: False}, (3, 4)),
        ({3: False, 5: True, 7: False}, (5, 7)),
        ({2: False, 3: None}, (None, 2)),
        ({2: None, 3: True}, (3, None)),
    ],
)
def test_it_is_between_the_largest_that_holds_and_the_least_above_it_that_does_not(
    tried: dict[int, bool | None], ends: tuple[int | None, int | None]
) -> None:
    assert bracket(tried.items()) == ends
