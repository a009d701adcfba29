"""Traffic over PCIe is the counters' gain over a block, or what samples of the throughput integrate to."""

import pytest
from fake_nvml import FakeGpu, FakeNvml

from zbench.hardware.nvml import Nvml
from zbench.probes.integral import integral
from zbench.probes.pcie import PcieMeter, PcieTraffic


def metered(gpu: FakeGpu, readings: list[tuple[int, int]]) -> PcieTraffic:
    """A block in which the counters read so, one look a second."""
    gpu.pcie_counters = readings[0]
    meter = PcieMeter(Nvml(FakeNvml(gpu)), 0)
    meter.start()
    for second, reading in enumerate(readings[1:]):
        gpu.pcie_counters = reading
        meter.look(float(second))
    return meter.traffic()


def test_traffic_is_what_the_counters_gained() -> None:
    assert metered(FakeGpu(), [(1_000, 50), (4_000, 50), (9_000, 80)]) == PcieTraffic(8_000, 30, "counter")


@pytest.mark.parametrize("full", [2**32, 2**64])
def test_a_counter_that_begins_anew_loses_nothing(full: int) -> None:
    assert metered(FakeGpu(), [(full - 4096, 0), (4096, 0), (8192, 0)]) == PcieTraffic(12_288, 0, "counter")


def test_a_wide_counter_past_four_gigabytes_is_not_taken_for_a_narrow_one() -> None:
    assert metered(FakeGpu(), [(2**32 - 10, 0), (2**33, 0)]).received_bytes == 2**32 + 10


def test_a_look_that_fails_is_made_up_for_by_the_next() -> None:
    gpu = FakeGpu(pcie_counters=(100, 100))
    library = FakeNvml(gpu)
    fields = library.calls["nvmlDeviceGetFieldValues"]
    meter = PcieMeter(Nvml(library), 0)
    meter.start()
    del library.calls["nvmlDeviceGetFieldValues"]
    meter.look(1.0)
    library.calls["nvmlDeviceGetFieldValues"] = fields
    gpu.pcie_counters = (700, 200)
    meter.look(2.0)
    assert meter.traffic() == PcieTraffic(600, 100, "counter")


def test_without_counters_throughput_is_sampled_and_marked() -> None:
    """1 MB/s received for 2 s, then a rise to 3 MB/s over 2 s: 2 + 4 MB."""
    gpu = FakeGpu(pcie_kb_per_s=(1_000, 500))
    meter = PcieMeter(Nvml(FakeNvml(gpu, without=("nvmlDeviceGetFieldValues",))), 0)
    meter.start()
    meter.look(0.0)
    meter.look(2.0)
    gpu.pcie_kb_per_s = (3_000, 500)
    meter.look(4.0)
    assert meter.traffic() == PcieTraffic(6_000_000, 2_000_000, "sampled")


def test_a_driver_that_says_nothing_has_no_figure() -> None:
    calls = ("nvmlDeviceGetFieldValues", "nvmlDeviceGetPcieThroughput")
    meter = PcieMeter(Nvml(FakeNvml(FakeGpu(), unsupported=calls)), 0)
    meter.start()
    meter.look(1.0)
    meter.look(2.0)
    assert meter.traffic() == PcieTraffic(None, None, None)


def test_one_block_after_another_starts_from_nothing() -> None:
    gpu = FakeGpu()
    meter = PcieMeter(Nvml(FakeNvml(gpu)), 0)
    for gained in (5_000, 700):
        meter.start()
        gpu.pcie_counters = (gpu.pcie_counters[0] + gained, 0)
        meter.look(1.0)
        assert meter.traffic().received_bytes == gained


def test_the_integral_needs_two_points() -> None:
    assert integral([]) is None and integral([(0.0, 5.0)]) is None
    assert integral([(0.0, 5.0), (2.0, 7.0)]) == 12.0
