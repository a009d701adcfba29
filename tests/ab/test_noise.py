"""`zbench doctor --noise` over the torch-free engine."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from commands import SYNTHETIC, zbench_here
from factories import complete, trial
from rich.status import Status

from zbench.ab import equal_workers, noise
from zbench.ab.interleave import SideName
from zbench.ab.noise import Noise
from zbench.ab.side import Side
from zbench.analysis.speedup import EQUAL_WORKERS, measured_noise
from zbench.analysis.speedup import equal_workers as equal_share
from zbench.cli import main
from zbench.config import ComputeConfig, MeasureConfig
from zbench.errors import RecordError
from zbench.hardware.detect import present_environment
from zbench.hardware.equal_workers import equal_workers_path, spread_of, store_equal_workers

ROUND_S = 0.003


def test_noise_says_how_many_rounds_a_change_needs(tmp_path: Path) -> None:
    done = zbench_here(
        tmp_path, "doctor", "--noise", "--format", "json", *SYNTHETIC, f"engine.options.round_s={ROUND_S}"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [need["change"] for need in said["needs"]] == [0.01, 0.02, 0.05]
    rounds = [need["rounds"] or 10**6 for need in said["needs"]]
    assert rounds == sorted(rounds, reverse=True)
    assert len(said["latencies_s"]) == 64 * said["rounds_a_turn"] == 64 * 8 and ROUND_S <= said["median_s"] < 0.1
    assert not list(tmp_path.iterdir())
    assert 0 <= said["equal_workers"] < 0.5 and said["equal_workers_reason"] is None
    kept = of_the_cpu()
    assert kept is not None and kept["share"] == pytest.approx(said["equal_workers"]), "records made here have it now"
    assert kept["told"].endswith(f", {said['label']}")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for args, named in (
        (["doctor", "pipeline.steps=3"], "without --noise: pipeline.steps=3"),
        (["doctor", "--noise", *SYNTHETIC, "pipeline.stepz=3"], "pipeline.stepz"),
        (["doctor", "--noise", *SYNTHETIC[:-1], "hardware=b300"], "--noise: hardware=b300 is not here"),
    ):
        done = zbench_here(tmp_path, *args)
        assert done.returncode == 2 and done.stdout == ""
        assert named in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(autouse=True)
def kept_elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZBENCH_CEILINGS_DIR", str(tmp_path_factory.mktemp("kept")))


def test_the_spread_is_that_of_two_processes_which_a_speed_up_is_of() -> None:
    assert spread_of([0.02, -0.02, 0.02, -0.02]) == pytest.approx(0.02)


class Introduced:
    """Stands in for a worker; b's rounds take 2 % longer."""

    started: ClassVar[list[SideName]] = []

    def __init__(self, sides: list[Side], log: Path, timeout_s: float) -> None:
        self.beside: set[Introduced] | None = None
        self.started.append(sides[0].name)

    def start_importing(self) -> None: ...

    def finish_importing(self) -> None: ...

    def prepare(self, began_s: float) -> None:
        assert self.beside is None

    def knows_beside(self, others: Iterable["Introduced"]) -> None:
        self.beside = {*others} - {self}

    def generate(self, name: SideName, index: int) -> SimpleNamespace:
        assert self.beside and len(self.beside) == 1, "the other worker would be taken for a foreign process"
        return SimpleNamespace(latency_s=1.02 if name == "b" else 1.0)

    def close(self) -> None: ...


def test_equal_workers_know_of_each_other_and_start_in_either_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equal_workers, "SideWorker", Introduced)
    monkeypatch.setattr(Introduced, "started", [])
    made = equal_workers.equal_pairs(Side("a", trial()), MeasureConfig(), tmp_path, lambda _: None)
    assert made == pytest.approx([math.log(1.02)] * equal_workers.PAIRS)
    assert Introduced.started == list("abbaabbaabba")


class Steady(Introduced):
    """Alone or beside its equal; its rounds take as long as one another, to half a per cent."""

    def generate(self, name: SideName, index: int) -> SimpleNamespace:
        self.made = getattr(self, "made", 0) + 1
        return SimpleNamespace(latency_s=1.0 + self.made % 3 * 0.005, disturbances=[], invalid_reasons=[])


def test_the_table_names_the_changes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (noise, equal_workers):
        monkeypatch.setattr(module, "SideWorker", Steady)
    assert main(["doctor", "--noise", *SYNTHETIC]) == 0
    shown = capsys.readouterr().out
    assert "processes of the same code differ by" in shown
    assert "scatters by" in shown and all(f" {change}%" in shown for change in (1, 2, 5))


def test_a_pair_that_no_record_could_hold_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "equal_pairs", lambda *_: [0.01, -0.01, 0.0, 1.2])
    side = Side("a", trial())
    found = noise.with_equal_workers(Noise("x", 1.0, 0.0, 0.0, (), (1.0,), 1, ()), side, MeasureConfig(), Status(""))
    assert found.equal_workers is None and found.equal_workers_reason is not None
    assert of_the_cpu() is None, "a file that is refused would stop every sweep here"


RATIOS = [0.02, -0.01, 0.0, 0.01]


def of_the_cpu() -> dict[str, Any] | None:
    """What an environment that is made here now says of it."""
    noise = present_environment().noise
    return None if noise is None else noise["cpu"]


def test_what_was_stored_is_read_and_a_broken_file_is_named() -> None:
    assert of_the_cpu() is None
    path = store_equal_workers((), "tiny", RATIOS)
    kept = of_the_cpu()
    assert kept is not None and kept["share"] == pytest.approx(spread_of(RATIOS))
    assert re.fullmatch(r"20\d\d-\d\d-\d\d, tiny", kept["told"])
    for broken in ("{", "[]", "null", path.read_text().replace("0.02", "2"), path.read_text().replace("0.02,", "")):
        path.write_text(broken)
        with pytest.raises(RecordError, match="doctor --noise") as raised:
            present_environment()
        assert str(equal_workers_path(json.loads('"' + path.stem + '"'))) in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"machine": {"torch": "2.0.0"}}, "torch 2.0.0 → "),
        ({"machine": {"host memory, GiB": 7}}, "host memory, GiB 7 → "),
        ({"schema_version": 1}, "an older zbench"),
    ],
)
def test_what_was_measured_elsewhere_or_with_other_software_is_said_and_not_used(
    changed: dict[str, Any], said: str
) -> None:
    """The folder may be in a home that several machines share, and outlives what is installed."""
    path = store_equal_workers((), "tiny", RATIOS)
    data = json.loads(path.read_text())
    machine = data["machine"] | changed.get("machine", {})
    path.write_text(json.dumps(data | changed | {"machine": machine}))
    kept = of_the_cpu()
    assert kept is not None and kept["share"] is None and said in kept["told"]


def test_each_trial_counts_what_was_measured_on_its_own_device() -> None:
    noise = {"cuda": {"share": 0.004, "told": "2026-11-27, turbo"}, "cpu": {"share": None, "told": "elsewhere"}}
    on_cpu = replace(
        complete(trial(compute=ComputeConfig(device="cpu"))),
        environment={"devices": [{"name": "H100"}], "noise": noise},
    )
    config = {**on_cpu.config, "compute": {**on_cpu.config["compute"], "device": "cuda"}}
    assert measured_noise(on_cpu) == (None, "elsewhere") and equal_share(on_cpu) == EQUAL_WORKERS
    assert measured_noise(replace(on_cpu, config=config)) == (0.004, "2026-11-27, turbo")
    older = replace(on_cpu, environment={"devices": [{"name": "H100"}], "equal_workers": 0.004})
    assert measured_noise(older) == (None, None), "the GPU's"
    assert equal_share(replace(older, config=config)) == 0.004
    assert equal_share(replace(older, environment={"equal_workers": 0.02})) == 0.02


def test_noise_of_two_modes_is_named() -> None:
    made = Noise("x", 0.9, 0.1, 0.0, (), (0.82, 1.02) * 12, 1, ())
    assert "two modes, 0.82 s (12 of 24 requests) and 1.02 s (12 of 24)" in noise.render_noise(made, "table")
