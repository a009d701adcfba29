"""The device probe reads a GPU from beside the block, and says why for everything it cannot read."""

import json
import time
from dataclasses import asdict
from typing import Any

import pytest
from fake_nvml import GIB, FakeGpu, FakeNvml

from zbench.hardware.nvml import Nvml
from zbench.probes.device import DeviceProbe, DeviceReadings

PID = 7
NEVER_S = 3600.0


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def probe(*gpus: FakeGpu, clock: Clock | None = None, library: FakeNvml | None = None, **options: Any) -> DeviceProbe:
    """Samples at start, at stop, and whenever the test asks."""
    nvml = Nvml(library or FakeNvml(*gpus))
    return DeviceProbe(nvml, pids=[PID], interval_s=NEVER_S, clock_s=clock or Clock(), **options)


def watched(gpu: FakeGpu, *, seconds: float = 20.0, **options: Any) -> DeviceReadings:
    """A block of `seconds` in which nothing changes."""
    clock = Clock()
    watching = probe(gpu, clock=clock, **options)
    watching.start()
    clock.now_s += seconds
    return watching.stop(rounds=4)


def test_without_a_gpu_everything_is_none_for_a_reason() -> None:
    nothing = DeviceProbe(Nvml(FakeNvml()), interval_s=NEVER_S)
    nothing.start()
    seen = nothing.stop(rounds=4)
    assert seen.peak_process_bytes is None
    assert seen.energy is None
    assert set(seen.reasons.values()) == {"no_gpu"}
    assert seen.suspicions() == []


def test_the_peak_is_the_largest_sample() -> None:
    gpu = FakeGpu(used=11 * GIB, compute={PID: 10 * GIB})
    watching = probe(gpu)
    watching.start()
    gpu.compute, gpu.used = {PID: 16 * GIB}, 18 * GIB
    watching.sample()
    gpu.compute, gpu.used = {PID: 12 * GIB}, 13 * GIB
    seen = watching.stop(rounds=1)
    assert (seen.peak_process_bytes, seen.telemetry.memory_method, seen.telemetry.peak_used_bytes) == (
        16 * GIB,
        "process",
        18 * GIB,
    )


def test_a_hidden_process_gets_the_devices_difference_and_the_mark() -> None:
    seen = watched(FakeGpu(used=18 * GIB), used_before_bytes=2 * GIB)
    assert (seen.peak_process_bytes, seen.telemetry.memory_method) == (16 * GIB, "device_difference")


def test_a_hidden_process_without_a_difference_has_no_figure() -> None:
    seen = watched(FakeGpu(used=18 * GIB))
    assert seen.peak_process_bytes is None
    assert seen.reasons["peak_process_bytes"] == "pid_hidden"


def test_energy_is_the_counters_difference() -> None:
    clock, gpu = Clock(), FakeGpu(energy_mj=1_000_000)
    watching = probe(gpu, clock=clock)
    watching.start()
    clock.now_s, gpu.energy_mj = 12.0, 4_600_000
    energy = watching.stop(rounds=6).energy
    assert energy is not None
    assert (energy.joules, energy.requests, energy.method) == (pytest.approx(3600), 6, "counter")


def test_without_a_counter_power_is_integrated() -> None:
    """300 W for 10 s, then a rise to 500 W over 10 s: 3000 + 4000 J."""
    clock, gpu = Clock(), FakeGpu(power_mw=300_000)
    watching = probe(gpu, clock=clock, library=FakeNvml(gpu, unsupported=("nvmlDeviceGetTotalEnergyConsumption",)))
    watching.start()
    clock.now_s = 10.0
    watching.sample()
    clock.now_s, gpu.power_mw = 20.0, 500_000
    energy = watching.stop(rounds=2).energy
    assert energy is not None
    assert (energy.joules, energy.method) == (pytest.approx(7000), "integrated power")


def test_a_block_under_ten_seconds_has_no_energy() -> None:
    """The counter moves in steps of up to 100 ms of power; below 10 s that is more than 1 %."""
    seen = watched(FakeGpu(), seconds=9.9)
    assert seen.energy is None
    assert seen.reasons["energy"] == "block_under_10_s"


def test_a_gpu_without_counter_and_power_has_no_energy() -> None:
    gpu = FakeGpu()
    calls = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    seen = watched(gpu, library=FakeNvml(gpu, without=calls))
    assert seen.energy is None
    assert seen.reasons["energy"] == "not_supported"


def test_clocks_heat_and_power_are_summarised() -> None:
    gpu = FakeGpu(sm_mhz=1_000, temperature=50, power_mw=100_000)
    watching = probe(gpu)
    watching.start()
    gpu.sm_mhz, gpu.temperature, gpu.power_mw = 2_000, 70, 300_000
    seen = watching.stop(rounds=1)
    assert (seen.telemetry.sm_clock_mhz_mean, seen.telemetry.sm_clock_mhz_max) == (1_500, 2_000)
    assert seen.telemetry.temperature_c_max == 70
    assert seen.telemetry.power_w_mean == 200


def test_throttling_makes_a_measurement_suspect() -> None:
    seen = watched(FakeGpu(throttle=FakeNvml.nvmlClocksEventReasonSwPowerCap))
    assert seen.telemetry.throttled == {"sw_power_cap": 1.0} and seen.suspicions() == [], (
        "its own limit is no disturbance"
    )
    seen = watched(FakeGpu(throttle=FakeNvml.nvmlClocksEventReasonHwPowerBrakeSlowdown))
    assert seen.suspicions() == ["the GPU was throttled (hw_power_brake) in 100% of the samples"]


def test_somebody_elses_computing_makes_a_measurement_suspect() -> None:
    seen = watched(FakeGpu(compute={PID: GIB, 99: GIB}))
    assert seen.telemetry.other_compute_pids == [99]
    assert "PID 99" in seen.suspicions()[0]


def test_a_hidden_process_is_not_taken_for_somebody_else() -> None:
    """In a container the only PID shown may be this process's own, by its number on the host."""
    seen = watched(FakeGpu(compute={4242: GIB}))
    assert seen.telemetry.other_compute_pids is None
    assert seen.reasons["other_compute_pids"] == "pid_hidden"
    assert seen.suspicions() == []


def test_what_a_driver_does_not_say_is_none() -> None:
    gpu = FakeGpu(compute={PID: GIB})
    calls = ("nvmlDeviceGetClockInfo", "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons")
    library = FakeNvml(gpu, unsupported=(*calls, "nvmlDeviceGetCurrentClocksThrottleReasons"))
    seen = watched(gpu, library=library)
    assert (seen.telemetry.sm_clock_mhz_mean, seen.telemetry.temperature_c_max, seen.telemetry.throttled) == (
        None,
        None,
        None,
    )


def test_a_probe_watches_one_block_after_another() -> None:
    gpu = FakeGpu(compute={PID: 9 * GIB})
    watching = probe(gpu)
    watching.start()
    watching.stop(rounds=1)
    gpu.compute = {PID: 2 * GIB}
    watching.start()
    assert watching.stop(rounds=1).peak_process_bytes == 2 * GIB


def test_it_samples_by_itself_while_a_block_runs() -> None:
    watching = DeviceProbe(Nvml(FakeNvml(FakeGpu())), pids=[PID], interval_s=0.01)
    watching.start()
    deadline = time.monotonic() + 5
    while len(watching._samples) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watching.stop(rounds=1).telemetry.samples >= 4


def test_what_was_seen_is_json() -> None:
    telemetry = asdict(watched(FakeGpu(compute={PID: GIB})).telemetry)
    json.dumps(telemetry, allow_nan=False)
    assert telemetry["memory_method"] == "process"


def test_traffic_over_pcie_is_told_with_its_method() -> None:
    gpu = FakeGpu(pcie_counters=(1_000, 100))
    watching = probe(gpu)
    watching.start()
    gpu.pcie_counters = (9_000, 400)
    seen = watching.stop(rounds=1)
    told = seen.telemetry
    assert (told.pcie_rx_bytes, told.pcie_tx_bytes, told.pcie_method) == (
        8_000,
        300,
        "counter",
    )


def test_without_counters_traffic_is_sampled() -> None:
    gpu = FakeGpu(pcie_kb_per_s=(50, 10))
    seen = watched(gpu, seconds=20.0, library=FakeNvml(gpu, without=("nvmlDeviceGetFieldValues",)))
    told = seen.telemetry
    assert (told.pcie_rx_bytes, told.pcie_tx_bytes, told.pcie_method) == (
        1_000_000,
        200_000,
        "sampled",
    )


def test_traffic_that_cannot_be_had_has_a_reason() -> None:
    gpu = FakeGpu()
    seen = watched(gpu, library=FakeNvml(gpu, without=("nvmlDeviceGetFieldValues", "nvmlDeviceGetPcieThroughput")))
    told = seen.telemetry
    assert (told.pcie_rx_bytes, told.pcie_tx_bytes, told.pcie_method) == (
        None,
        None,
        None,
    )
    assert seen.reasons["pcie_rx_bytes"] == seen.reasons["pcie_tx_bytes"] == "not_supported"


BRAKED = FakeNvml.nvmlClocksEventReasonHwPowerBrakeSlowdown


def test_a_round_counts_by_the_share_of_its_own_samples() -> None:
    """20 samples in each of two rounds: one of the first shows a reason (5 %), two of the second (10 %)."""
    clock, gpu = Clock(), FakeGpu(compute={PID: GIB})
    watching = probe(gpu, clock=clock)
    watching.start()
    for index in range(40):
        clock.now_s = 1.0 + index
        gpu.throttle = BRAKED if index in (7, 25, 39) else 0
        watching.sample()
    assert watching.reasons_between(1.0, 20.5) == []
    assert watching.reasons_between(20.5, 40.5) == ["throttled:hw_power_brake"]


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (FakeNvml.nvmlClocksEventReasonGpuIdle, []),
        (FakeNvml.nvmlClocksEventReasonSwPowerCap, []),
        (FakeNvml.nvmlClocksEventReasonHwSlowdown, ["throttled:hw_slowdown"]),
        (FakeNvml.nvmlClocksEventReasonSwThermalSlowdown, ["throttled:sw_thermal"]),
        (FakeNvml.nvmlClocksEventReasonHwThermalSlowdown, ["throttled:hw_thermal"]),
        (FakeNvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, ["throttled:hw_power_brake"]),
    ],
)
def test_every_reason_from_without_counts_and_neither_idling_nor_its_own_limit(bits: int, names: list[str]) -> None:
    watching = probe(FakeGpu(throttle=bits, compute={PID: GIB}))
    watching.start()
    assert watching.reasons_between(0.0, 1.0) == names


def test_a_round_that_no_sample_fell_into_gets_one() -> None:
    clock, gpu = Clock(), FakeGpu(compute={PID: GIB})
    watching = probe(gpu, clock=clock)
    watching.start()
    clock.now_s, gpu.throttle, gpu.compute = 3.0, BRAKED, {PID: GIB, 99: GIB}
    assert watching.reasons_between(2.9, 3.0) == ["throttled:hw_power_brake", "foreign_process"]
    assert watching.stop(rounds=1).telemetry.samples == 3


def test_a_round_is_not_blamed_for_what_cannot_be_known() -> None:
    gpu = FakeGpu(compute={4242: GIB})  # a container: this process by its number on the host, or somebody else
    names = (f"nvmlDeviceGetCurrentClocks{word}Reasons" for word in ("Event", "Throttle"))
    watching = probe(gpu, library=FakeNvml(gpu, unsupported=tuple(names)))
    watching.start()
    assert watching.reasons_between(0.0, 1.0) == []


def test_without_a_gpu_no_round_is_blamed() -> None:
    assert DeviceProbe(Nvml(FakeNvml()), interval_s=NEVER_S).reasons_between(0.0, 1.0) == []
