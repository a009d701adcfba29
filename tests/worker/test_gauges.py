"""A GPU that is not here: torch's allocator and NVML are faked, so only where their answers go is claimed."""

import os

from fake_nvml import GIB, FakeGpu, FakeNvml

from zbench.hardware.nvml import Nvml
from zbench.worker.gauges import Gauges


class FakeCuda:
    def reset_peak_memory_stats(self) -> None:
        """Nothing was counted."""

    def max_memory_allocated(self) -> int:
        return 3 * GIB

    def max_memory_reserved(self) -> int:
        return 4 * GIB


def test_gpu_peaks_telemetry_and_doubts_find_their_places() -> None:
    gpu = FakeGpu(compute={os.getpid(): 5 * GIB, 1: GIB})
    gauges = Gauges(Nvml(FakeNvml(gpu)), FakeCuda())
    gauges.start("cuda")
    seen = gauges.stop(rounds=2)
    assert seen.memory.peak_allocated_bytes == 3 * GIB
    assert seen.memory.peak_reserved_bytes == 4 * GIB
    assert seen.memory.peak_device_bytes == 5 * GIB
    assert seen.memory.host_peak_rss_bytes is not None
    assert seen.energy is None and seen.reasons["energy"] == "block_under_10_s"
    assert seen.telemetry["temperature_c_max"] == gpu.temperature
    assert any("PID 1" in doubt for doubt in seen.validity)


def test_driver_that_hides_the_process_is_measured_against_the_start() -> None:
    gpu = FakeGpu(used=2 * GIB)
    gauges = Gauges(Nvml(FakeNvml(gpu)), FakeCuda())
    gpu.used = 9 * GIB  # loading took 7 GiB
    gauges.start("cuda")
    assert gauges.stop(rounds=1).memory.peak_device_bytes == 7 * GIB


def test_host_engine_on_a_machine_with_a_gpu_reads_none_of_it() -> None:
    gauges = Gauges(Nvml(FakeNvml(FakeGpu())), FakeCuda())
    gauges.start("cpu")
    seen = gauges.stop(rounds=1)
    assert seen.memory.peak_device_bytes is None and seen.telemetry == {}
    assert seen.reasons["memory.peak_device_bytes"] == seen.reasons["energy"] == "no_gpu"


def test_gpu_without_nvml_still_has_the_allocator_s_peaks() -> None:
    gauges = Gauges(Nvml(FakeNvml()), FakeCuda())
    gauges.start("cuda")
    seen = gauges.stop(rounds=1)
    assert seen.memory.peak_reserved_bytes == 4 * GIB and seen.memory.peak_device_bytes is None
    assert seen.reasons["memory.peak_device_bytes"] == "no_nvml"
