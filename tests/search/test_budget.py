"""What one more trial is expected to take, by what those before it took."""

import pytest

from zbench.search.tune.budget import Budget, Ledger, Paid, Want

EAGER = Paid("eager", cold_s=3, warm_s=10, calls=10)
COMPILED = Paid("compiled", cold_s=40, warm_s=8, calls=10)


def ledger(*paid: Paid, seconds: float | None = None, trials: int | None = None) -> Ledger:
    return Ledger(Budget(seconds, trials), list(paid))


def test_a_pipeline_that_is_loaded_is_not_paid_for_again() -> None:
    """Compiling is no part of what the next trial of the same process takes."""
    assert ledger(EAGER, COMPILED).expected_s(Want("compiled", 4)) == 8
    assert ledger(COMPILED, EAGER).expected_s(Want("compiled", 4)) == 48


def test_what_nobody_saw_yet_takes_what_others_took() -> None:
    assert ledger().expected_s(Want("eager", 4)) == 0
    assert ledger(EAGER, COMPILED).expected_s(Want("fast", 4)) == 9 + 21.5


def test_of_images_alone_each_sample_is_made_once() -> None:
    """A call took 1 s in a window of ten; once such a trial ran, its own time counts."""
    wanted = Want("eager", 4, only_quality=True)
    assert ledger(EAGER).expected_s(wanted) == 4
    seen = Paid("eager", cold_s=0, warm_s=6, calls=4, only_quality=True)
    assert ledger(EAGER, seen).expected_s(wanted) == 6
    assert ledger(EAGER, seen).expected_s(Want("eager", 4)) == 10, "it says nothing of one that is timed"


def test_what_fits_into_what_is_left_may_begin() -> None:
    some = ledger(EAGER, COMPILED, seconds=70)
    assert some.leaves([Want("compiled", 4)]) and not some.leaves([Want("eager", 4)], share=0.9)


def test_room_is_kept_for_what_comes_last_unless_that_takes_a_quarter() -> None:
    last = [Want("eager", 4, only_quality=True)]
    assert ledger(EAGER, seconds=24).leaves([Want("eager", 4)])
    assert not ledger(EAGER, seconds=24).leaves([Want("eager", 4)], aside=last)
    assert ledger(EAGER, seconds=23).leaves([Want("eager", 4)], aside=[*last, *last, *last])
    assert not ledger(EAGER, trials=4).leaves([Want("eager", 4)] * 3, aside=last)
    assert ledger(EAGER, trials=3).leaves([Want("eager", 4)] * 2, aside=last)


@pytest.mark.parametrize(
    ("budget", "fits"), [({"seconds": 53}, 8), ({"trials": 11}, 8), ({}, None), ({"trials": 1}, 0)]
)
def test_how_many_fit_into_a_share_of_what_is_left(budget: dict[str, int], fits: int | None) -> None:
    assert ledger(EAGER, **budget).fitting_in(Want("eager", 4, only_quality=True), 0.8) == fits
