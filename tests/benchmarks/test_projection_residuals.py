"""The command that prints how far the projection is off: what it reads, and what it leaves out."""

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from factories import ENVIRONMENT, TURBO, complete, demo_records, trial

from zbench.config import ComputeConfig, ParallelConfig
from zbench.hardware.published import published_figures

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("projection_residuals")


def on_h100(**groups: object):
    """A forward of exactly 0.1 s on two H100, or one."""
    made = complete(trial(pipeline=TURBO, compute=ComputeConfig(device="cuda", compile=True), **groups), vram_gib=25.0)
    measured = made.measurement
    requests = [replace(r, steps_s=[0.1] * 8, text_tokens=[64]) for r in measured.requests]
    effective = replace(measured.effective, device="cuda", dtype="bfloat16")
    measured = replace(measured, window=replace(measured.window, requests=requests), effective=effective)
    device = {"name": "NVIDIA H100 80GB HBM3"}
    return replace(made, measurement=measured, environment={**ENVIRONMENT, "devices": [device, device]})


def test_one_device_and_several_are_projected(command: ModuleType):
    one, two = command.of_records([on_h100(), on_h100(parallel=ParallelConfig(ulysses_size=2))])
    assert (one.hardware, one.devices, two.devices, one.measured_s) == ("h100", 1, 2, 0.1)
    assert one.share == pytest.approx(0.02, abs=1e-3), "102.0 ms is what the profile was fitted to"
    assert two.projected_s < one.projected_s


def test_published_figures_keep_the_residuals_that_the_model_tells(command: ModuleType):
    shares = {r.setting.removeprefix("published: "): r.share for r in command.of_published(published_figures())}
    assert shares["zbench-h100-compiled"] == pytest.approx(0.0, abs=1e-3)
    assert set(shares) >= {f"zbench-h200-x2-{kind}" for kind in ("ulysses", "tp", "ulysses-eager", "ring-eager")}
    assert "zbench-h100-fp8" not in shares and "zbench-h100-compiled-fast" not in shares


def test_what_is_small_projected_or_of_a_cpu_is_passed_over(command: ModuleType):
    assert list(command.of_records(demo_records())) == []


def test_the_command_prints_rows_and_sums_without_torch(tmp_path: Path):
    journal = tmp_path / "h100" / "records.jsonl"
    journal.parent.mkdir()
    records = [on_h100(), on_h100(parallel=ParallelConfig(tp_size=2))]
    journal.write_text("".join(record.to_json() + "\n" for record in records), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", str(FOLDER / "projection_residuals.py"), str(journal)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "h100: none u2" not in ran.stdout and "h100: none tp2 compiled" in ran.stdout
    assert "h100, several devices: 1 row," in ran.stdout
    assert not any(line.endswith("| torch") or line.endswith(" torch") for line in ran.stderr.splitlines())


def test_a_journal_that_is_not_there_is_one_line(command: ModuleType, capsys: pytest.CaptureFixture[str]):
    assert command.main(["/nowhere/records.jsonl"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
