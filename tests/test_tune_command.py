"""`zbench tune` as a user runs it, over an engine on a known surface: limits, budgets, resuming, and its ends."""

import json
from collections import Counter
from pathlib import Path

import pytest
from commands import TESTS, kill, start, wait_for, zbench_here

from zbench.cli import main
from zbench.composition import overlay
from zbench.store import read_records

ON_SURFACE = ("--config-dir", str(TESTS / "conf"), "engine=surface", "hardware=cpu", "pipeline=zimage_tiny")
QUICK = ("workload=single", "measure.min_rounds=2", "measure.max_rounds=2", "measure.max_warmup_rounds=0")
FEW = ("compute=eager,compiled", "cache=none,forced")


def tune(*more: str, flags: str = "") -> list[str]:
    return ["tune", *ON_SURFACE, *overlay([*QUICK, *FEW, "sweep.name=s"], more), *flags.split()]


def journal(folder: Path) -> Path:
    return folder / "runs" / "s" / "records.jsonl"


def finished(folder: Path) -> int:
    return journal(folder).read_bytes().count(b"\n") if journal(folder).exists() else 0


def test_it_ends_with_the_best_its_launch_lines_and_the_path(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *tune(flags="--min-ssim 0.85"))
    assert done.returncode == 0, done.stderr
    for says in (
        "Runner-up: ",
        "Run it again:",
        "Serve it with SGLang:",
        "Path, what each decision bought:",
        "Budget: ",
    ):
        assert says in done.stdout
    assert done.stdout.startswith("forced_")
    assert "within --min-ssim 0.85" in done.stdout and "one device: nothing to decide" in done.stdout
    assert (tmp_path / "reports" / "s" / "report.html").exists()
    assert all(record.state == "COMPLETE" for record in read_records(journal(tmp_path)))


def test_json_has_the_answer_and_the_path(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *tune(flags="--min-ssim 0.85 --format json --budget 3"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["spent"]["trials"] == 3 and told["spent"]["ran_out"] is True
    assert told["answer"]["chosen"]["trial_id"] and told["works"][0]["undecided"] == []
    assert {"question": "compute", "label": "none compiled"} in told["works"][0]["put_off"]


def test_the_same_command_goes_on_after_kill_9_and_measures_nothing_twice(tmp_path: Path) -> None:
    args = tune("cache=none,dbcache,forced", flags="--min-ssim 0.85 --budget 12")
    process = start(tmp_path, *args)
    wait_for(lambda: finished(tmp_path) >= 3 or process.poll() is not None)
    kill(process)
    kept = finished(tmp_path)
    again = zbench_here(tmp_path, *args)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("from the journal") == kept
    assert set(Counter(r.trial_id for r in read_records(journal(tmp_path))).values()) == {1}
    whole = zbench_here(tmp_path, *args)
    assert whole.stderr.count("from the journal") == finished(tmp_path)
    assert whole.stdout.partition("Budget")[0] == again.stdout.partition("Budget")[0]


def test_another_limit_is_answered_from_the_same_records(tmp_path: Path) -> None:
    unnamed = [arg for arg in tune() if not arg.startswith("sweep.name")]
    for limit in ("0.85", "0.99"):
        assert zbench_here(tmp_path, *unnamed, "--min-ssim", limit).returncode == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_limit_typed_as_an_option_of_the_search_is_one_of_the_answer(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *tune("search.options.min_ssim=0.85"))
    assert done.returncode == 0, done.stderr
    assert "within --min-ssim 0.85" in done.stdout
    swept = zbench_here(tmp_path, "sweep", *tune("search=tune", "search.options.min_ssim=0.85")[1:])
    assert swept.returncode == 0, swept.stderr
    assert done.stdout.partition("Budget: ")[0] in swept.stdout, "a sweep that tune searches has the same answer"


def test_where_nothing_is_feasible_it_ends_as_recommend_does_and_says_what_was_tried(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *tune(flags="--max-latency-s 0.0001"))
    assert done.returncode == 4
    assert "satisfies --max-latency-s 0.0001; nearest is" in done.stderr and "Path, what each" in done.stderr
    assert not done.stdout


def test_works_that_differ_have_an_answer_each(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *tune("pipeline.height=128,256", "cache=none"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("== zimage_tiny 256×128, 8 steps ==") == 2  # of the answer and of its path
    assert done.stdout.count("== zimage_tiny 256×256, 8 steps ==") == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--min-ssim", "1.5"], "--min-ssim=1.5: must be within -1 and 1"),
        (["--min-ssim", "much"], "--min-ssim: invalid float value: 'much'"),
        (["--max-vram-gib", "-1"], "--max-vram-gib=-1.0: must be a finite number of at least 0"),
        (["--max-vram-gib", "16"], "--max-vram-gib=16: there is no GPU here"),
        (["--max-lpips", "0.1"], "--max-lpips=0.1: needs a judge; give measure.lpips_weights="),
        (["--min-clip-score", "20"], "--min-clip-score=20: needs a judge; give measure.clip_weights="),
        (["--budget", "ten"], "--budget=ten: must be such as 10min"),
        (["--budget", "0"], "--budget=0: is a number of trials"),
        (["--objective", "speed"], "--objective: invalid choice: 'speed'"),
        (["--objective", "energy"], "--objective=energy: there is no GPU here"),
        (["--min-sim", "1"], "--min-sim: no such flag"),
        (["search=grid"], "both decide search"),
        (["search.seed=3"], "search.seed=3: tune draws nothing"),
        (["search.options.max_lpips=0.1"], "--max-lpips=0.1: needs a judge"),
        (["measure.quality_only=true"], "measure.quality_only=true: tune chooses by what it measured of time"),
        (["hardware=b300"], "hardware=b300: is not here, so its figures would be projections; add --allow-proxy"),
        (["pipeline.weights=random", "--min-ssim", "0.9"], "--min-ssim=0.9: weights are random"),
        (["workload=rates"], "tune finds no rates"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_nothing_is_run(
    args: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hardware = [] if any(arg.startswith("hardware=") for arg in args) else ["hardware=cpu"]
    assert main(["tune", "pipeline=zimage_tiny", *hardware, *FEW, *args]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert not (tmp_path / "runs").exists()


def test_its_help_has_limits_budget_and_the_groups(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--help"]) == 0
    shown = capfd.readouterr().out
    for says in (
        "--max-vram-gib",
        "--max-lpips",
        "--min-clip-score",
        "--max-latency-s",
        "--budget",
        "compute: compiled",
    ):
        assert says in shown
