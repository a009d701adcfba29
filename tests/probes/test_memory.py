"""Peaks are compared with allocations many times larger than a page, so the bounds hold on any machine."""

import mmap
from pathlib import Path

import pytest
from fake_allocator import FakeAllocator, on_gpu
from fake_nvml import GIB

from zbench.probes.memory import SINCE_START, MemoryProbe

MIB = 2**20


def _touch(mebibytes: int) -> None:
    """Hold memory for a moment; a mapping goes back to the kernel as soon as it is closed."""
    with mmap.mmap(-1, mebibytes * MIB) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1


def test_host_peak_covers_the_block_and_forgets_what_was_before() -> None:
    probe = MemoryProbe()
    _touch(200)
    probe.start()
    quiet, reasons = probe.stop()
    if reasons.get("memory.host_peak_rss_bytes") == SINCE_START:
        pytest.skip("this kernel does not let the peak be reset")
    probe.start()
    _touch(100)
    busy, _ = probe.stop()
    assert quiet["host_peak_rss_bytes"] is not None and busy["host_peak_rss_bytes"] is not None
    assert busy["host_peak_rss_bytes"] - quiet["host_peak_rss_bytes"] == pytest.approx(100 * MIB, abs=20 * MIB)


def test_peak_that_cannot_be_reset_is_the_process_s_and_says_so(tmp_path: Path) -> None:
    probe = MemoryProbe(proc=tmp_path / "nowhere")
    probe.start()
    peaks, reasons = probe.stop()
    assert reasons["memory.host_peak_rss_bytes"] == SINCE_START
    assert peaks["host_peak_rss_bytes"] is not None and peaks["host_peak_rss_bytes"] > MIB


def test_without_a_gpu_its_peaks_are_none_with_a_reason() -> None:
    probe = MemoryProbe()
    probe.start()
    peaks, reasons = probe.stop()
    assert peaks["peak_allocated_bytes"] is None and peaks["peak_reserved_bytes"] is None
    assert reasons["memory.peak_allocated_bytes"] == reasons["memory.peak_reserved_bytes"] == "no_gpu"


def test_allocator_peaks_are_reset_before_the_block() -> None:
    watched = on_gpu()
    probe = MemoryProbe(watched)
    probe.start()
    assert isinstance(watched.allocator, FakeAllocator) and watched.allocator.resets == 1
    peaks, _ = probe.stop()
    assert (peaks["peak_allocated_bytes"], peaks["peak_reserved_bytes"]) == (3 * GIB, 4 * GIB)
