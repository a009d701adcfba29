"""Peaks are compared with allocations many times larger than a page, so the bounds hold on any machine."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_allocator import FakeAllocator, on_gpu
from fake_nvml import GIB

from zbench.probes.memory import PID_HIDDEN, SINCE_START, MemoryProbe
from zbench.probes.watched import Watched

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


HOLDS = """
import mmap, subprocess, sys
memory = mmap.mmap(-1, 60 * 2**20)
for page in range(0, len(memory), mmap.PAGESIZE):
    memory[page] = 1
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]]) if sys.argv[2:] else None
if child is None:
    print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def server() -> Iterator[int]:
    """A process and its child, which hold 60 MiB each beside their interpreters."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, "", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def host_peak(*pids: int) -> int:
    probe = MemoryProbe(Watched(pids))
    probe.start()
    peak = probe.stop()[0]["host_peak_rss_bytes"]
    assert peak is not None
    return peak


def test_a_servers_memory_is_its_tree_s_and_this_process_counts_where_it_is_watched() -> None:
    with server() as pid:
        tree, alone = host_peak(pid), host_peak(os.getpid())
        assert 120 * MIB < tree < 220 * MIB
        assert host_peak(os.getpid(), pid) == pytest.approx(tree + alone, abs=10 * MIB)


def test_what_this_process_started_counts_only_where_it_is_named() -> None:
    """As helpers of a compiler are."""
    before = host_peak(os.getpid())
    with server():
        assert host_peak(os.getpid()) == pytest.approx(before, abs=10 * MIB)


def test_a_process_that_cannot_be_looked_at_has_no_peak() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    probe = MemoryProbe(Watched((os.getpid(), process.pid)))
    probe.start()
    peaks, reasons = probe.stop()
    assert peaks["host_peak_rss_bytes"] is None and reasons["memory.host_peak_rss_bytes"] == PID_HIDDEN


def test_devices_without_an_allocator_of_ours_have_no_peaks_of_one() -> None:
    probe = MemoryProbe(Watched((os.getpid(),), devices=(0,)))
    probe.start()
    assert probe.stop()[1]["memory.peak_reserved_bytes"] == "no_allocator"


def test_of_a_server_elsewhere_nothing_is_claimed() -> None:
    """Not even 0 bytes."""
    probe = MemoryProbe(Watched((), unseen="server_elsewhere"))
    probe.start()
    peaks, reasons = probe.stop()
    assert set(peaks.values()) == {None}
    assert set(reasons.values()) == {"server_elsewhere"} and "memory.host_peak_rss_bytes" in reasons
