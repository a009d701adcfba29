"""`zbench ab` as a user runs it, over the torch-free engine whose rounds take as long as they are told."""

import json
import os
import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import SYNTHETIC, start, wait_for, workers_of, zbench_here

from zbench.executors.client import HOME

QUICK = (*SYNTHETIC, "workload=single")
SLOW = "engine.options.round_s=0.03"
SHORT, THRICE_AS_LONG = "engine.options.round_s=0.004", "engine.options.round_s=0.012"
"""Of claims that no ratio is part of."""
ONE_LAUNCH = ("--margin", "5%")
"""Of sides that have a worker each; a smaller margin takes many launches."""


def ab(folder: Path, *args: str) -> tuple[int, str, str]:
    done = zbench_here(folder, "ab", *QUICK, *args)
    return done.returncode, done.stdout, done.stderr


def test_a_slower_side_is_a_regression_and_every_round_is_kept(tmp_path: Path) -> None:
    code, out, err = ab(tmp_path, "--b", SLOW, *ONE_LAUNCH, "--format", "json", "sweep.name=kept")
    assert code == 1, err
    said = json.loads(out)
    assert said["workers"] == 2 and said["launches"] == 1 and "launches of both" not in err
    # 0.03 s against 0.01 s, and what a sleep oversleeps
    assert said["verdict"] == "SLOWER" and 2.5 < said["ratio"]["estimate"] < 3.1
    head, *blocks = (tmp_path / "runs" / "kept" / "blocks.jsonl").read_text().splitlines()
    assert json.loads(head)["format"] == "zbench-ab" and len(blocks) == said["blocks"]
    assert [side["effective"]["weights"] for side in json.loads(head)["sides"].values()] == ["synthetic"] * 2
    block = json.loads(blocks[0])
    assert [len(block[side]) for side in ("a", "b")] == [16, 16], "two turns of eight rounds of 0.01 and of 0.03 s"


def test_identical_sides_pass(tmp_path: Path) -> None:
    code, out, err = ab(tmp_path, SHORT, "--margin", "30%")
    assert code == 0, err
    assert "SAME" in out or "NO SLOWER" in out


def test_a_faster_side_passes(tmp_path: Path) -> None:
    code, out, _ = ab(tmp_path, SHORT, "--a", THRICE_AS_LONG, *ONE_LAUNCH)
    assert code == 0 and "FASTER" in out


def test_a_small_margin_takes_many_launches_in_an_order_that_favours_none(tmp_path: Path) -> None:
    code, out, err = ab(tmp_path, SHORT, "--b", THRICE_AS_LONG, "--format", "json", "sweep.name=launches")
    assert code == 1, err
    said = json.loads(out)
    assert said["verdict"] == "SLOWER" and said["launches"] == said["ratio"]["n"] == 9
    assert "a margin of 1 % takes 9 launches of both and more; 3 % would take one" in err
    head, *blocks = [json.loads(line) for line in (tmp_path / "runs/launches/blocks.jsonl").read_text().splitlines()]
    assert head["of"] == "launch" and len(blocks) == said["blocks"] == 54
    assert [block["launch"] for block in blocks] == [launch for launch in range(9) for _ in range(6)]


def test_a_budget_ends_a_launch_between_its_blocks(tmp_path: Path) -> None:
    sides = ("--a", "engine.options.round_s=0.1", "--b", "engine.options.round_s=0.101")
    code, out, err = ab(tmp_path, *sides, "--budget", "0.1s", "--format", "json")
    assert code == 3, err
    said = json.loads(out)
    assert (said["blocks"], said["launches"], said["ended"]) == (1, 1, "budget")
    assert "Nothing can be said: 1 of the 6 launches that a 0.95 interval needs." in said["reason"]


def test_sides_take_turns(tmp_path: Path) -> None:
    ab(tmp_path, SHORT, "--b", THRICE_AS_LONG, *ONE_LAUNCH, "sweep.name=turns")
    blocks = [json.loads(line) for line in (tmp_path / "runs/turns/blocks.jsonl").read_text().splitlines()[1:]]
    for block, order in zip(blocks, ["abba", "baab"] * len(blocks), strict=False):
        rounds = sorted((r["begun_s"], side) for side in ("a", "b") for r in block[side])
        assert "".join(side for _, side in rounds) == "".join(8 * side for side in order)


def test_sides_that_differ_in_step_skipping_alone_share_a_pipeline(tmp_path: Path) -> None:
    skipping = "cache=dbcache cache.residual_diff_threshold=0.1"
    code, _, err = ab(tmp_path, SHORT, "--b", skipping, "--margin", "40%", "sweep.name=shared")
    assert code == 0, err
    head, *blocks = [json.loads(line) for line in (tmp_path / "runs/shared/blocks.jsonl").read_text().splitlines()]
    assert head["workers"] == 1 and "a margin of" not in err
    skipped = {side: {len(r["cached_steps"]) > 0 for block in blocks for r in block[side]} for side in ("a", "b")}
    assert skipped == {"a": {False}, "b": {True}}, "each turn runs under its own side's setting"


def test_sides_that_differ_in_steps_alone_share_a_pipeline_too(tmp_path: Path) -> None:
    code, _, err = ab(
        tmp_path, SHORT, "--a", "pipeline.steps=8", "--b", "pipeline.steps=12", "--margin", "40%", "sweep.name=s"
    )
    assert code == 0, err
    head, *blocks = [json.loads(line) for line in (tmp_path / "runs/s/blocks.jsonl").read_text().splitlines()]
    steps = {side: {len(r["steps_s"]) for block in blocks for r in block[side]} for side in ("a", "b")}
    assert head["workers"] == 1 and steps == {"a": {8}, "b": {12}}


def test_ci_gets_junit_annotations_and_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    code, out, err = ab(tmp_path, SHORT, "--b", THRICE_AS_LONG, *ONE_LAUNCH, "--format", "junit", "--github")
    suite = ElementTree.fromstring(out)
    assert code == 1 and (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert "::error title=zbench%3A zimage_tiny none%2C 8 steps against " in err
    assert "1 of 1 regressed" in (tmp_path / "summary.md").read_text()
    crash = "cache=dbcache cache.residual_diff_threshold=0.5 engine.options.crash_on=0.5"
    code, out, err = ab(tmp_path, "--b", crash, "--format", "junit", "--github")
    assert code == 1 and ElementTree.fromstring(out).get("failures") == "1" and "::error" in err


@pytest.mark.parametrize(("side", "code"), [("b", 1), ("a", 2)])
@pytest.mark.parametrize("shared", [True, False])
def test_a_side_that_fails_is_never_a_pass(side: str, code: int, shared: bool, tmp_path: Path) -> None:
    crash, sick = "engine.options.crash_on=0.5", "cache=dbcache cache.residual_diff_threshold=0.5"
    common, own = ([crash], sick) if shared else ([], f"{sick} {crash}")
    returned, out, err = ab(tmp_path, *common, f"--{side}", own)
    assert returned == code and out == ""
    assert f"--{side}: the worker died of SIGABRT" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--margin", "fast"], "--margin=fast"),
        (["--margin", "0%"], "--margin=0%"),
        (["--budget", "soon"], "--budget=soon"),
        (["--budget", "0s"], "--budget=0s"),
        (["--budget", "-3s"], "--budget=-3s"),
        (["--b", "pipeline.stepz=3"], "pipeline.stepz=3"),
        (["--b", "pipeline.steps='3"], "--b=pipeline.steps='3"),
        (["--b", "cache=dbcache cache.Fn_compute_blocks=99"], "exceed the 10 blocks"),
        (["--b", "hardware=b300"], "hardware=b300 is not here"),
        (["--b", "workload=scenes"], "workload=scenes: must be the same on both sides"),
        (["--b", "measure=quick"], "--b=measure=quick: says how both are measured"),
        (["--b-python", "/no/such/python"], "--b-python=/no/such/python"),
        (["--b-rev", "no-such-revision"], "--b-rev=no-such-revision"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_input_is_one_line(args: list[str], named: str, tmp_path: Path) -> None:
    code, out, err = ab(tmp_path, *args)
    assert code == 2 and out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("zbench: error: ") and named in line


def test_a_worker_of_another_protocol_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python"
    hello = json.dumps({"event": "hello", "protocol": 1, "pid": 1}) + "\n"
    says = f"import os, sys, time; os.write(int(sys.argv[-1]), {hello.encode()!r}); time.sleep(9)"
    python.write_text(f"#!{sys.executable}\n{says}\n")
    python.chmod(0o755)
    code, _, err = ab(tmp_path, "--b-python", str(python))
    assert code == 2 and "--b: its worker speaks protocol 1" in err


def worktrees() -> set[Path]:
    return set((HOME / ".git" / "worktrees").glob("*"))


def test_a_revision_is_checked_out_and_taken_away_again(tmp_path: Path) -> None:
    before = worktrees()
    code, out, err = ab(tmp_path, SHORT, "--b-rev", "HEAD", "--margin", "40%")
    assert code == 0, err
    assert "at HEAD (" in out
    assert worktrees() == before


def test_ctrl_c_ends_after_the_block_and_leaves_no_worker(tmp_path: Path) -> None:
    process = start(tmp_path, "ab", *QUICK, "--a", "engine.options.round_s=0.1", "--margin", "0.01%")
    blocks = tmp_path / "runs"
    wait_for(lambda: any(len(f.read_text().splitlines()) > 1 for f in blocks.glob("*/blocks.jsonl")))
    workers = workers_of(process.pid)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "INCONCLUSIVE" in out and "interrupted" in err
    assert len(workers) == 2 and not any(worker.is_running() for worker in workers)
