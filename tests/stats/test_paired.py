"""Unlike prompts are compared each with itself, and none counts more for having been made more often."""

import pytest

from zbench.stats import median, pair_medians, paired_speedup

BASELINE = [(prompt, 1.0) for prompt in "aabb"]


def test_each_pair_has_its_own_median():
    samples = [("a", 3.0), ("b", 10.0), ("a", 1.0), ("a", 2.0)]
    assert pair_medians(samples) == {"a": 2.0, "b": 10.0}


def test_the_speed_up_is_that_of_the_whole_workload():
    # Prompt a skips steps and b skips none: 1 + 1 seconds become 0.4 + 1.0, however often either is made.
    for times_a, times_b in ((2, 2), (3, 2), (2, 3)):
        own = [("a", 0.4)] * times_a + [("b", 1.0)] * times_b
        assert paired_speedup(own, BASELINE) == pytest.approx(2.0 / 1.4)
    # The ratio of pooled medians would be 2.5, 1.43 or 1.0 by that alone.
    assert 1.0 / median([0.4, 0.4, 0.4, 1.0, 1.0]) == 2.5


def test_only_pairs_that_both_have_count():
    assert paired_speedup([("a", 0.5), ("c", 9.0)], BASELINE) == 2.0
    assert paired_speedup([("c", 9.0)], BASELINE) is None
    assert paired_speedup([], BASELINE) is None


def test_no_time_at_all_gives_no_speed_up():
    assert paired_speedup([("a", 0.0)], BASELINE) is None
