"""A GPU that is not here: torch's allocator and NVML are faked, so only where their answers go is claimed."""

import os
import subprocess
import sys

import pytest
from fake_allocator import ON_HOST, FakeAllocator, on_gpu
from fake_nvml import GIB, FakeGpu, FakeNvml

from zbench.hardware.nvml import Nvml
from zbench.measurement import Telemetry
from zbench.probes.watched import Watched
from zbench.worker.gauges import Gauges


def test_gpu_peaks_telemetry_and_doubts_find_their_places() -> None:
    gpu = FakeGpu(compute={os.getpid(): 5 * GIB, 1: GIB})
    gauges = Gauges(Nvml(FakeNvml(gpu)))
    gauges.start(on_gpu())
    seen = gauges.stop(rounds=2)
    assert seen.memory.peak_allocated_bytes == 3 * GIB
    assert seen.memory.peak_reserved_bytes == 4 * GIB
    assert seen.memory.peak_device_bytes == 5 * GIB
    assert seen.memory.host_peak_rss_bytes is not None
    assert seen.energy is None and seen.reasons["energy"] == "block_under_10_s"
    assert seen.telemetry.temperature_c_max == gpu.temperature
    assert any("PID 1" in doubt for doubt in seen.validity)


def test_driver_that_hides_the_process_is_measured_against_the_start() -> None:
    gpu = FakeGpu(used=2 * GIB)
    gauges = Gauges(Nvml(FakeNvml(gpu)))
    gpu.used = 9 * GIB  # loading took 7 GiB
    gauges.start(on_gpu())
    assert gauges.stop(rounds=1).memory.peak_device_bytes == 7 * GIB


def test_host_engine_on_a_machine_with_a_gpu_reads_none_of_it() -> None:
    gauges = Gauges(Nvml(FakeNvml(FakeGpu())))
    gauges.start(ON_HOST)
    seen = gauges.stop(rounds=1)
    assert seen.memory.peak_device_bytes is None and seen.telemetry == Telemetry()
    assert seen.reasons["memory.peak_device_bytes"] == seen.reasons["energy"] == "no_gpu"


def test_gpu_without_nvml_still_has_the_allocator_s_peaks() -> None:
    gauges = Gauges(Nvml(FakeNvml()))
    gauges.start(on_gpu())
    seen = gauges.stop(rounds=1)
    assert seen.memory.peak_reserved_bytes == 4 * GIB and seen.memory.peak_device_bytes is None
    assert seen.reasons["memory.peak_device_bytes"] == seen.reasons["telemetry.memory_check"] == "no_nvml"


def test_rounds_are_judged_between_their_begin_and_end() -> None:
    gpu = FakeGpu(compute={os.getpid(): 5 * GIB})
    gauges = Gauges(Nvml(FakeNvml(gpu)))
    gauges.start(on_gpu())
    gauges.begin_round()
    assert gauges.end_round() == []
    gpu.throttle = FakeNvml.nvmlClocksEventReasonHwThermalSlowdown
    gauges.begin_round()
    assert gauges.end_round() == ["throttled:hw_thermal"]
    gauges.stop(rounds=2)


def test_without_a_device_to_ask_no_round_is_blamed() -> None:
    for gauges, watched in (
        (Gauges(Nvml(FakeNvml(FakeGpu()))), ON_HOST),
        (Gauges(Nvml(FakeNvml())), ON_HOST),
        (Gauges(Nvml(FakeNvml())), on_gpu()),
    ):
        gauges.start(watched)
        gauges.begin_round()
        assert gauges.end_round() == []
        gauges.stop(rounds=1)


def test_nvml_s_peak_less_the_context_is_held_against_torch_s() -> None:
    """5 GiB by NVML where torch holds 4 and the context took 1; what NVML then sees grow is neither's."""
    for grown, doubted in ((0, False), (GIB // 10, False), (GIB // 4, True), (-GIB // 4, True)):
        gpu = FakeGpu(compute={os.getpid(): 4 * GIB})
        gauges = Gauges(Nvml(FakeNvml(gpu)))
        gauges.start(on_gpu(GIB))
        gpu.compute = {os.getpid(): 5 * GIB + grown}
        seen = gauges.stop(rounds=1)
        check = seen.telemetry.memory_check
        assert (check.torch_reserved_bytes, check.nvml_process_bytes) == (4 * GIB, 5 * GIB + grown)
        assert (check.context_bytes, check.method) == (GIB, "process")
        assert check.rel_difference == pytest.approx(grown / (4 * GIB))
        assert any("less the context" in doubt for doubt in seen.validity) == doubted
        assert any("may miss what lasts less" in doubt for doubt in seen.validity) == (doubted and grown < 0)


def test_a_hidden_process_is_checked_by_the_device_s_difference_and_says_so() -> None:
    gpu = FakeGpu(used=2 * GIB)
    gauges = Gauges(Nvml(FakeNvml(gpu)))
    gpu.used = 7 * GIB
    gauges.start(on_gpu(GIB))
    check = gauges.stop(rounds=1).telemetry.memory_check
    assert (check.context_bytes, check.method, check.rel_difference) == (GIB, "device_difference", 0.0)


def test_a_process_without_a_figure_is_not_checked() -> None:
    gpu = FakeGpu(compute={os.getpid(): None})
    gauges = Gauges(Nvml(FakeNvml(gpu, unsupported=("nvmlDeviceGetMemoryInfo",))))
    gauges.start(on_gpu())
    seen = gauges.stop(rounds=1)
    assert seen.telemetry.memory_check is None
    assert seen.reasons["telemetry.memory_check"] == seen.reasons["memory.peak_device_bytes"] == "pid_hidden"


SERVER, RANKS = 4_000_100, (4_000_100, 4_000_101)


def test_a_server_s_memory_is_its_trial_s_own_and_it_is_no_neighbour() -> None:
    """Two processes on two devices, neither this one; the fullest device says how much memory it takes."""
    one, other = FakeGpu(compute={RANKS[0]: 5 * GIB}), FakeGpu(compute={RANKS[1]: 6 * GIB, RANKS[0]: GIB})
    gauges = Gauges(Nvml(FakeNvml(one, other)))
    gauges.start(Watched(RANKS, (0, 1)))
    gauges.begin_round()
    assert gauges.end_round() == []
    seen = gauges.stop(rounds=1)
    assert seen.memory.peak_device_bytes == 7 * GIB and seen.telemetry.other_compute_pids == []
    assert seen.memory.peak_reserved_bytes is None
    assert seen.reasons["memory.peak_reserved_bytes"] == "no_allocator"
    assert seen.reasons["telemetry.memory_check"] == "several_devices"


@pytest.mark.parametrize(
    ("watched", "why"),
    [
        (Watched((SERVER,), (0,)), "no_allocator"),
        (Watched(RANKS, (0,), FakeAllocator()), "several_processes"),
        (Watched((SERVER,), (0, 1), FakeAllocator()), "several_devices"),
    ],
)
def test_an_allocator_is_held_against_nvml_where_both_see_the_same(watched: Watched, why: str) -> None:
    gauges = Gauges(Nvml(FakeNvml(FakeGpu(compute={SERVER: GIB}), FakeGpu(compute={SERVER: GIB}))))
    gauges.start(watched)
    assert gauges.stop(rounds=1).reasons["telemetry.memory_check"] == why


def test_a_device_that_nvml_does_not_know_leaves_no_half_of_a_sum() -> None:
    gauges = Gauges(Nvml(FakeNvml(FakeGpu(compute={SERVER: GIB}))))
    gauges.start(Watched((SERVER,), (0, 1)))
    seen = gauges.stop(rounds=1)
    assert seen.energy is None and seen.memory.peak_device_bytes is None
    assert seen.reasons["energy"] == seen.reasons["memory.peak_device_bytes"] == "no_nvml"


def test_gauges_bring_no_torch() -> None:
    code = "import sys, zbench.worker.gauges; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
