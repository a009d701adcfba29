"""Images that are none where they were images are a regression; where they were none before, nothing can be said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from factories import complete, failed, of_invalid_images, spoilt, trial

from zbench.cli import main
from zbench.config import DBCacheConfig
from zbench.errors import Exit, RecordError
from zbench.gate.baselines import left_out, save_baseline
from zbench.gate.judge import assess
from zbench.gate.limits import parse_limit
from zbench.measurement import Effective
from zbench.record import Record
from zbench.store import RECORDS

PLAIN, CACHED = trial(), trial(DBCacheConfig())
LIMITS = [parse_limit("latency.median:3%"), parse_limit("quality.ssim:-0.01")]
GOOD = [complete(PLAIN, n_rounds=24), complete(CACHED, latency_s=0.7, ssim=0.97, n_rounds=24)]
ONE_SPOILT = [GOOD[0], of_invalid_images(CACHED, 5, n_rounds=24)]
ALL_SPOILT = [of_invalid_images(PLAIN), of_invalid_images(CACHED)]


@pytest.mark.parametrize(
    ("new", "base", "code"),
    [
        (GOOD, GOOD, Exit.DONE),
        (ONE_SPOILT, GOOD, Exit.REGRESSION),
        (ALL_SPOILT, GOOD, Exit.REGRESSION),
        (GOOD, ONE_SPOILT, Exit.INCONCLUSIVE),
        (GOOD, ALL_SPOILT, Exit.INCONCLUSIVE),
        (ALL_SPOILT, ALL_SPOILT, Exit.INCONCLUSIVE),
        (ALL_SPOILT, ONE_SPOILT, Exit.REGRESSION),  # the plain one's were valid
        (GOOD[:1], ALL_SPOILT[1:], Exit.BAD_INPUT),  # nothing in common
    ],
)
def test_whose_images_are_none_decides(new: list[Record], base: list[Record], code: Exit) -> None:
    try:
        assert assess(new, base, LIMITS).exit_code == code
    except RecordError as error:
        assert error.exit_code == code


@pytest.mark.parametrize("why", ["out_of_memory", "timeout", "worker_died", "error", "weights"])
def test_whatever_the_new_side_fails_of_is_a_regression(why: str) -> None:
    assert assess([GOOD[0], failed(CACHED, why)], GOOD, LIMITS).exit_code == Exit.REGRESSION


def test_weights_that_were_replaced_by_spoilt_ones_are_a_regression_all_the_same() -> None:
    """Speed under other weights is not compared; that there are no more images needs no comparison."""
    base = [complete(CACHED, effective=Effective(device="cpu", weights_sha256="a" * 64))]
    new = [of_invalid_images(CACHED, effective=Effective(device="cpu", weights_sha256="b" * 64))]
    assert assess(new, base, LIMITS[:1]).exit_code == Exit.REGRESSION


def run(folder: Path, records: list[Record]) -> str:
    folder.mkdir()
    (folder / RECORDS).write_text("".join(f"{record.to_json()}\n" for record in records))
    return str(folder)


def test_every_form_says_that_images_are_no_longer_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    base, new = run(tmp_path / "base", GOOD), run(tmp_path / "new", ONE_SPOILT)
    said = "images are no longer valid: invalid_images, images of 1 of 24 requests are not valid (black_image 1)"
    forms: dict[str, Any] = {}
    for form in ("table", "markdown", "json", "junit"):
        assert main(["compare", base, new, "--format", form, "--github"]) == Exit.REGRESSION
        captured = capsys.readouterr()
        forms[form] = captured.out
        assert said in captured.out and f"::{said}" in captured.err
    assert (
        "REGRESSED" in forms["table"]
        and f"{CACHED.label}: {said}" in forms["table"]
        and said in (tmp_path / "summary.md").read_text()
    )
    assert json.loads(forms["json"])["exit_code"] == 1 and said in json.loads(forms["json"])["gone"][0]["why"]
    assert ElementTree.fromstring(forms["junit"]).get("failures") == "1"
    assert main(["compare", new, base, "--format", "junit"]) == Exit.INCONCLUSIVE
    assert ElementTree.fromstring(capsys.readouterr().out).get("errors") == "1"


def test_a_baseline_is_kept_of_valid_trials_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    throttled = replace(GOOD[1], measurement=spoilt(GOOD[1].measurement, why="throttled:sw_thermal"))
    for name, records in (("spoilt", ALL_SPOILT), ("throttled", [throttled]), ("failed", [failed(PLAIN, "timeout")])):
        records = [replace(record, sweep=name) for record in records]
        assert main(["baseline", "save", run(tmp_path / name, records), "--name", name]) == Exit.BAD_INPUT
        refused = capsys.readouterr()
        assert f"run {name} has no valid trial, so there is nothing to keep" in refused.err and refused.out == ""
    assert not (tmp_path / "runs").exists()
    assert main(["baseline", "save", run(tmp_path / "some", ONE_SPOILT), "--name", "some"]) == Exit.DONE
    kept = capsys.readouterr()
    assert f"{CACHED.label} is left out: FAILED (invalid_images: images of 1 of 24 requests" in kept.err
    assert json.loads(Path(kept.out.strip()).read_text())["records"][0]["trial_id"] == PLAIN.trial_id
    assert left_out(GOOD) == {}


def test_a_baseline_of_an_older_zbench_with_spoilt_images_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It called a trial COMPLETE whose every image was black; what it kept is held to its images when it is read."""
    monkeypatch.chdir(tmp_path)
    as_kept = replace(GOOD[0], measurement=spoilt(GOOD[0].measurement, 3))
    path = save_baseline([as_kept], "older", tmp_path / "runs")
    assert main(["gate", run(tmp_path / "new", GOOD), "--baseline", str(path)]) == Exit.BAD_INPUT
    assert "invalid_images" in capsys.readouterr().err
