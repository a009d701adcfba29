"""What nvidia-smi writes is read back right and held against zbench's own figures; it and the GPU are faked."""

import importlib
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from fake_allocator import on_gpu
from fake_nvml import GIB, FakeGpu, FakeNvml

from zbench.hardware.nvml import Nvml
from zbench.measurement import Energy, Memory, MemoryCheck, Telemetry
from zbench.worker.gauges import Gauges, Readings

FOLDER = Path(__file__).parents[2] / "benchmarks" / "agreement"
MIB = 2**20
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()
LINES = """\
2026/01/02 12:00:00.000, 1000, 100.00
2026/01/02 12:00:01.000, 3000, 300.50
2026/01/02 12:00:02.500, 2000, [N/A]
2026/01/02 12:00:03.000, [Insufficient Permissions], 299.50
Failed to get a figure
2026/01/02 12:00:04.0"""
FAKE = """#!{python}
import sys, time
from datetime import datetime, timezone
assert "--query-gpu=timestamp,memory.used,power.draw" in sys.argv, sys.argv
assert sys.argv[sys.argv.index("-lms") + 1] == "50" and "--format=csv,noheader,nounits" in sys.argv
while True:
    at = datetime.now(timezone.utc).strftime("%Y/%m/%d %H:%M:%S.%f")[:-3]
    print(at + ", 5120, 300.00", flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("smi")


@pytest.fixture
def device(smi: ModuleType) -> ModuleType:
    return importlib.import_module("device")


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that comes first on PATH, with an nvidia-smi that sees 5 GiB and 300 W at all times."""
    script = tmp_path / "nvidia-smi"
    script.write_text(FAKE.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return script


def test_lines_are_read_and_what_is_no_sample_is_left_out(smi: ModuleType) -> None:
    assert smi.read_samples(LINES) == [
        smi.Sample(NOON, 1000 * MIB, 100.0),
        smi.Sample(NOON + 1, 3000 * MIB, 300.5),
        smi.Sample(NOON + 2.5, 2000 * MIB, None),
        smi.Sample(NOON + 3, None, 299.5),
    ]


def test_the_peak_is_that_of_the_span(smi: ModuleType) -> None:
    samples = smi.read_samples(LINES)
    assert smi.peak_bytes(samples, NOON, NOON + 5) == 3000 * MIB
    assert smi.peak_bytes(samples, NOON + 1.5, NOON + 5) == 2000 * MIB
    assert smi.peak_bytes(samples, NOON + 2.8, NOON + 5) is None


def test_power_is_integrated_over_the_whole_span(smi: ModuleType) -> None:
    """300 W seen from 1 s to 3 s stand for the 3 s from 0.5 s to 3.5 s."""
    samples = smi.read_samples(LINES)
    assert smi.joules(samples, NOON + 0.5, NOON + 3.5) == pytest.approx(900)
    assert smi.joules(samples, NOON, NOON + 1) == pytest.approx((100 + 300.5) / 2)
    assert smi.joules(samples, NOON + 2, NOON + 3) is None  # one sample with a figure


def test_samples_come_from_a_process_of_its_own_that_is_then_ended(smi: ModuleType, on_path: Path) -> None:
    with smi.sampling("GPU-aaaa") as out:
        time.sleep(0.3)
        samples = smi.read_samples(out.read_text())
    assert len(samples) >= 3 and {s.used_bytes for s in samples} == {5 * GIB}
    assert abs(samples[-1].at_s - time.time()) < 5


def test_an_nvidia_smi_that_fails_is_quoted(smi: ModuleType, on_path: Path) -> None:
    on_path.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because there is no driver'\nexit 9\n")
    with pytest.raises(smi.SmiError, match=r"ended with 9: .* no driver"), smi.sampling(None):
        pass


def test_a_block_is_held_against_it(device: ModuleType, smi: ModuleType, on_path: Path, monkeypatch) -> None:
    """5 GiB and 300 W by both; NVML's energy is said to be 10 % more."""
    monkeypatch.setattr(device, "WARM_UP_S", 0.1)
    gpu = FakeGpu(used=5 * GIB, compute={os.getpid(): 5 * GIB})
    gauges = Gauges(Nvml(FakeNvml(gpu)))
    with smi.sampling("GPU-aaaa") as out:
        span = device.watched(lambda: time.sleep(0.02), gauges, on_gpu(GIB), 0.5)
        samples = smi.read_samples(out.read_text())
    assert span.spoilt == () and 0.5 <= span.ended_s - span.began_s < 5
    *memory, energy = device.compared(span, samples)
    assert [pair.ratio for pair in memory] == [1.0, 1.0, 1.0]
    assert energy.ratio is None and span.readings.reasons["energy"] == "block_under_10_s"
    assert energy.line.startswith("energy: zbench no figure, nvidia-smi ")


def test_a_ratio_is_zbench_s_figure_over_nvidia_smi_s(device: ModuleType, smi: ModuleType) -> None:
    check = MemoryCheck(2 * GIB, 3 * GIB, GIB, 0.0, "process")
    readings = Readings(
        Memory(peak_device_bytes=3 * GIB),
        Energy(330.0, 1, "counter"),
        Telemetry(memory_check=check, peak_used_bytes=6 * GIB, memory_method="process"),
    )
    samples = [smi.Sample(float(second), 4 * GIB, 100.0) for second in range(4)]
    pairs = device.compared(device.Span(readings, 0.0, 3.0, ()), samples)
    assert [pair.ratio for pair in pairs] == [0.75, 1.5, 0.75, pytest.approx(1.1)]


def test_without_nvidia_smi_one_line_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "device.py")],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "nvidia-smi is not on PATH" in done.stderr
