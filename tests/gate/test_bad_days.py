"""What goes wrong sooner or later must never turn into a pass, nor into a false alarm."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import SYNTHETIC, zbench
from factories import complete, measurement, trial, with_window

from zbench.cli import main
from zbench.errors import Exit, RecordError
from zbench.gate.baselines import _digest, machine_of, read_baseline, save_baseline
from zbench.gate.judge import assess
from zbench.gate.limits import parse_limit
from zbench.record import Record
from zbench.stats import Verdict
from zbench.store import RECORDS

LATENCY = [parse_limit("latency.median:3%")]


def run(latencies_s: list[float]) -> list[Record]:
    """One trial whose rounds took so long, over two prompts by turns."""
    made = measurement(trial(), n_rounds=len(latencies_s))
    rounds = [replace(r, latency_s=s) for r, s in zip(made.requests, latencies_s, strict=True)]
    return [replace(complete(trial()), measurement=with_window(made, requests=rounds))]


def steady(count: int = 24) -> list[float]:
    return [1 + 0.01 * (k * 7 % 5 - 2) for k in range(count)]


def verdict(new: list[float], base: list[float]) -> tuple[Verdict, Exit]:
    assessment = assess(run(new), run(base), LATENCY)
    return assessment.findings[0].judgement.verdict, assessment.exit_code


@pytest.mark.parametrize("place", [0, 11, 23])
def test_a_round_of_fifty_times_the_median_is_no_alarm(place: int) -> None:
    new = steady()
    new[place] *= 50
    assert verdict(new, steady()) in [(Verdict.SAME, Exit.DONE), (Verdict.NO_SLOWER, Exit.DONE)]


def test_a_constant_metric_is_the_same() -> None:
    assert verdict([1.0] * 24, [1.0] * 24) == (Verdict.SAME, Exit.DONE)
    assert verdict([1.05] * 24, [1.0] * 24) == (Verdict.SLOWER, Exit.REGRESSION)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("side", ["new", "base"])
def test_a_time_that_is_none_decides_nothing(bad: float, side: str) -> None:
    sides = {"new": steady(), "base": steady()}
    sides[side][5] = bad
    assert verdict(**sides) == (Verdict.INCONCLUSIVE, Exit.INCONCLUSIVE)


@pytest.mark.parametrize("bad", [0, -1])
@pytest.mark.parametrize("side", ["new", "base"])
def test_a_size_that_is_none_decides_nothing(bad: int, side: str) -> None:
    records = {"new": run(steady()), "base": run(steady())}
    (record,) = records[side]
    assert record.measurement is not None
    memory = replace(record.measurement.memory, host_peak_rss_bytes=bad)
    records[side] = [replace(record, measurement=with_window(record.measurement, memory=memory))]
    assessment = assess(records["new"], records["base"], [parse_limit("memory.host_peak_rss:2%")])
    assert assessment.exit_code == Exit.INCONCLUSIVE


def test_a_likeness_that_falls_to_nothing_is_a_regression() -> None:
    """Of a likeness zero is a figure like any other."""
    spoilt, whole = complete(trial(), ssim=0.0), complete(trial(), ssim=0.9)
    assert assess([spoilt], [whole], [parse_limit("quality.ssim:5%")]).exit_code == Exit.REGRESSION


@pytest.mark.parametrize("number", ["Infinity", "NaN"])
def test_a_journal_with_what_is_no_number_cannot_be_judged(
    number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, latency in (("base", "1.0"), ("new", number)):
        (record,) = run([1.0] * 24)
        (tmp_path / name).mkdir()
        line = record.to_json().replace('"latency_s":1.0', f'"latency_s":{latency}')
        (tmp_path / name / RECORDS).write_text(line + "\n")
    assert main(["compare", str(tmp_path / "base"), str(tmp_path / "new")]) == Exit.BAD_INPUT
    assert f"{number} is not allowed" in capsys.readouterr().err


def test_a_baseline_of_an_older_schema_names_the_way_out(tmp_path: Path) -> None:
    path = save_baseline(run(steady()), "main", tmp_path)
    content = json.loads(path.read_text())
    del content["sha256"]
    content["schema_version"] = content["records"][0]["schema_version"] = 0
    path.write_text(json.dumps({**content, "sha256": _digest(content)}))
    with pytest.raises(RecordError, match=r"main/.*schema_version 0 cannot be upgraded.*baseline save RUN --name NAME"):
        read_baseline("main", tmp_path, machine_of(run(steady())[0].environment))


def test_an_edited_baseline_cannot_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_baseline(run(steady()), "main", tmp_path)
    path.write_text(path.read_text().replace('"latency_s": 1.0', '"latency_s": 9.0', 1))
    (tmp_path / RECORDS).write_text(run(steady())[0].to_json() + "\n")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    assert main(["gate", str(tmp_path), "--baseline", str(path)]) == Exit.BAD_INPUT
    assert "was edited or torn" in capsys.readouterr().err
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_full_disk_during_an_ab_keeps_the_blocks_before(tmp_path: Path) -> None:
    """The kernel's own limit on file size stands in for the disk; workers need no file beyond their logs."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        done = zbench(tmp_path, "ab", *SYNTHETIC, "workload=single", "sweep.name=full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.returncode == Exit.BAD_INPUT, done.stderr
    assert "blocks.jsonl: File too large" in done.stderr and "free some space" in done.stderr
    head, *blocks = (tmp_path / "runs/full/blocks.jsonl").read_text().splitlines()
    whole = [json.loads(line) for line in blocks]
    assert json.loads(head)["format"] == "zbench-ab" and whole and all(len(block["a"]) == 16 for block in whole)
