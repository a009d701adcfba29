"""What the host did during a round is told from counters before and after it, whatever the machine of the test does."""

import gc
from dataclasses import replace

import pytest

from zbench.probes.disturbance import HostState, RoundWatch, disturbances, host_state

BEFORE = HostState(
    monotonic_s=100.0,
    wall_s=1e9,
    collections=7,
    major_faults=3,
    own_cpu_s=40.0,
    busy_cpu_s=900.0,
    stolen_cpu_s=1.0,
    cores=2,
    frequency_mhz=3000.0,
)
QUIET = replace(BEFORE, monotonic_s=101.0, wall_s=1e9 + 1, own_cpu_s=41.9, busy_cpu_s=901.95)
"""A second in which the process kept nearly two cores busy, and next to nothing else ran."""


def test_a_quiet_round_has_none() -> None:
    assert disturbances(BEFORE, QUIET, highest_mhz=3000.0) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"collections": 8}, "garbage_collection"),
        ({"major_faults": 4}, "page_faults"),
        ({"busy_cpu_s": 902.4}, "other_load"),
        ({"stolen_cpu_s": 1.2}, "stolen_time"),
        ({"frequency_mhz": 2600.0}, "cpu_frequency"),
        ({"wall_s": 1e9 - 3600}, "clock_step"),
    ],
)
def test_each_disturbance_is_named(changes: dict[str, float], name: str) -> None:
    assert disturbances(BEFORE, replace(QUIET, **changes), highest_mhz=3000.0) == [name]


def test_a_tick_of_the_kernel_is_no_load() -> None:
    """In a round of 20 ms, one tick of 10 ms on each core would look like a whole core of other load."""
    short = replace(BEFORE, monotonic_s=100.02, wall_s=1e9 + 0.02, busy_cpu_s=900.02)
    assert disturbances(BEFORE, short) == []


def test_a_hidden_frequency_is_no_disturbance() -> None:
    assert disturbances(BEFORE, replace(QUIET, frequency_mhz=None), highest_mhz=3000.0) == []


def test_a_real_collection_is_seen() -> None:
    watch = RoundWatch()
    watch.begin()
    gc.collect()
    assert "garbage_collection" in watch.end()


def test_counters_only_rise() -> None:
    first, second = host_state(), host_state()
    assert second.monotonic_s >= first.monotonic_s and second.own_cpu_s >= first.own_cpu_s
    assert second.busy_cpu_s >= first.busy_cpu_s > 0 and first.cores >= 1
