"""`zbench doctor --noise` over the torch-free engine."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from commands import SYNTHETIC, zbench_here
from factories import trial
from rich.status import Status

from zbench.ab import equal_workers, noise
from zbench.ab.interleave import SideName
from zbench.ab.noise import Noise
from zbench.ab.side import Side
from zbench.cli import main
from zbench.config import MeasureConfig
from zbench.errors import RecordError
from zbench.hardware.detect import present_environment
from zbench.hardware.equal_workers import equal_workers_path, spread_of, store_equal_workers, stored_equal_workers

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
    kept = stored_equal_workers(())
    assert kept == pytest.approx(said["equal_workers"]), "records made here have it from now on"
    assert present_environment().equal_workers == kept


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
    assert stored_equal_workers(()) is None, "a file that is refused would stop every sweep here"


def test_what_was_stored_is_read_and_a_broken_file_is_named() -> None:
    assert stored_equal_workers(()) is None
    path = store_equal_workers((), "tiny", [0.02, -0.01, 0.0, 0.01])
    assert stored_equal_workers(()) == pytest.approx(spread_of([0.02, -0.01, 0.0, 0.01]))
    for broken in ("{", "[]", "null", path.read_text().replace("0.02", "2"), path.read_text().replace("0.02,", "")):
        path.write_text(broken)
        with pytest.raises(RecordError, match="doctor --noise") as raised:
            stored_equal_workers(())
        assert str(equal_workers_path(json.loads('"' + path.stem + '"'))) in str(raised.value)
