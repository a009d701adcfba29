"""Several GPUs as one reading: what each rule makes of two devices that differ, and what one that is silent spoils."""

import os
from collections.abc import Sequence
from typing import Any

import pytest
from fake_nvml import GIB, FakeGpu, FakeNvml

from zbench.hardware.nvml import Nvml
from zbench.measurement import Energy, Telemetry
from zbench.probes.device import DeviceProbe, DeviceReadings
from zbench.probes.devices import DeviceProbes, combined

RANKS = (7, 8)
BRAKED = FakeNvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
HOT = FakeNvml.nvmlClocksEventReasonHwThermalSlowdown


def probes(*gpus: FakeGpu, library: FakeNvml | None = None, pids: Sequence[int] = RANKS) -> DeviceProbes:
    nvml, now = Nvml(library or FakeNvml(*gpus)), iter(range(0, 10_000, 20))
    made = [
        DeviceProbe(nvml, index=index, pids=pids, interval_s=3600.0, clock_s=lambda: float(next(now)))
        for index in range(len(gpus))
    ]
    return DeviceProbes(made)


def seen(*gpus: FakeGpu, **options: Any) -> DeviceReadings:
    watching = probes(*gpus, **options)
    watching.start()
    return watching.stop(rounds=2)


def test_memory_is_that_of_the_fullest_device_and_each_rank_counts_where_it_is() -> None:
    one = FakeGpu(used=12 * GIB, compute={7: 3 * GIB, 8: 2 * GIB, 1: GIB})
    other = FakeGpu(used=9 * GIB, compute={8: 9 * GIB})
    read = seen(one, other)
    assert (read.peak_process_bytes, read.telemetry.memory_method) == (9 * GIB, "process")
    assert read.telemetry.peak_used_bytes == 12 * GIB


def test_memory_that_one_device_hides_is_not_known() -> None:
    read = seen(FakeGpu(compute={7: 3 * GIB}), FakeGpu(compute={8: None}))
    assert read.peak_process_bytes is None and read.telemetry.memory_method is None
    assert read.reasons["peak_process_bytes"] == "pid_hidden"


def test_heat_is_the_worst_power_the_sum_and_clocks_those_of_the_slowest() -> None:
    cool = FakeGpu(compute={7: GIB}, temperature=40, power_mw=300_000, sm_mhz=1_700, memory_mhz=2_500)
    hot = FakeGpu(compute={8: GIB}, temperature=80, power_mw=500_000, sm_mhz=1_100, memory_mhz=2_600)
    told = seen(cool, hot).telemetry
    assert (told.temperature_c_max, told.power_w_mean) == (80, 800)
    assert (told.sm_clock_mhz_mean, told.sm_clock_mhz_max) == (1_100, 1_100)
    assert (told.memory_clock_mhz_mean, told.memory_clock_mhz_max) == (2_600, 2_600)


def test_neighbours_on_any_device_count_once_and_a_sibling_rank_is_none() -> None:
    one, other = FakeGpu(compute={7: GIB, 8: GIB, 1: GIB}), FakeGpu(compute={8: GIB, 1: GIB, 2: GIB})
    watching = probes(one, other)
    watching.start()
    assert watching.reasons_between(0.0, 1e9) == ["foreign_process"]
    assert watching.stop(rounds=1).telemetry.other_compute_pids == [1, 2]
    assert seen(FakeGpu(compute={7: GIB, 8: GIB}), FakeGpu(compute={8: GIB})).telemetry.other_compute_pids == []


def test_who_else_is_there_is_unknown_where_a_device_hides_it_unless_somebody_was_seen() -> None:
    hidden = FakeGpu(compute={4242: GIB})
    read = seen(FakeGpu(compute={7: GIB}), hidden)
    assert read.telemetry.other_compute_pids is None and read.reasons["other_compute_pids"] == "pid_hidden"
    read = seen(FakeGpu(compute={7: GIB, 1: GIB}), hidden)
    assert read.telemetry.other_compute_pids == [1] and "other_compute_pids" not in read.reasons


def test_energy_and_traffic_are_summed() -> None:
    one, other = FakeGpu(compute={7: GIB}, energy_mj=1_000), FakeGpu(compute={8: GIB}, energy_mj=2_000)
    watching = probes(one, other)
    watching.start()
    one.energy_mj, one.pcie_counters = 5_000, (100, 10)
    other.energy_mj, other.pcie_counters = 9_000, (300, 40)
    read = watching.stop(rounds=2)
    assert read.energy == Energy(11.0, 2, "counter")
    told = read.telemetry
    assert (told.pcie_rx_bytes, told.pcie_tx_bytes, told.pcie_method) == (400, 50, "counter")


def test_a_sum_without_one_of_its_parts_is_none_with_that_parts_reason() -> None:
    whole = DeviceReadings(
        Telemetry(pcie_rx_bytes=5, pcie_tx_bytes=5, pcie_method="counter", power_w_mean=100.0),
        1,
        Energy(9.0, 1, "counter"),
    )
    part = DeviceReadings(Telemetry(), 1, None, {"energy": "not_supported", "pcie_rx_bytes": "not_supported"})
    for pair in ([whole, part], [part, whole]):
        read = combined(pair)
        assert read.energy is None and read.telemetry.pcie_rx_bytes is None and read.telemetry.power_w_mean is None
        assert read.telemetry.pcie_method is None and read.reasons == part.reasons


def test_an_integrated_part_makes_the_sum_integrated() -> None:
    parts = [
        DeviceReadings(energy=Energy(joules, 3, how)) for joules, how in ((1.0, "counter"), (2.0, "integrated power"))
    ]
    assert combined(parts).energy == Energy(3.0, 3, "integrated power")


def test_throttling_is_the_worst_share_and_spoils_a_round_on_any_device() -> None:
    one, other = FakeGpu(compute={7: GIB}, throttle=HOT), FakeGpu(compute={8: GIB})
    watching = probes(one, other)
    watching.start()
    one.throttle, other.throttle = 0, BRAKED
    assert watching.reasons_between(1e9, 1e9) == ["throttled:hw_power_brake"]
    other.throttle = 0
    assert watching.stop(rounds=1).telemetry.throttled == {
        "hw_thermal": pytest.approx(1 / 3),
        "hw_power_brake": pytest.approx(1 / 3),
    }


def test_one_device_is_read_as_its_probe_reads_it() -> None:
    reading = DeviceReadings(Telemetry(samples=3), None, None, {"energy": "block_under_10_s"})
    assert combined([reading]) is reading


def test_a_servers_children_are_its_own_where_the_driver_lists_them_alone() -> None:
    """The server itself holds no context; this process stands in for a child of it."""
    read = seen(FakeGpu(compute={os.getpid(): GIB, 1: GIB}), pids=[os.getppid()])
    assert read.telemetry.other_compute_pids == [1]
