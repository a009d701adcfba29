"""Loads as a user runs them: in one queue and by several clients, found rates, pages, what is refused, and a stop."""

import json
import signal
from pathlib import Path

import pytest
from commands import SYNTHETIC, start, wait_for, zbench_here

from zbench.record import Record
from zbench.store import read_records

QUICK = ("measure.max_warmup_rounds=1", "measure.min_rounds=6", "measure.max_rounds=6")
SINGLE = (*SYNTHETIC, *QUICK, "workload=single", "engine.options.round_s=0.005")
NAMED = ("sweep.name=s",)


def journal(folder: Path) -> list[Record]:
    return list({record.trial_id: record for record in read_records(folder / "runs" / "s" / "records.jsonl")}.values())


def test_one_queue_serves_poisson_arrivals_and_the_block_is_printed(tmp_path: Path) -> None:
    load = ("workload.arrivals=poisson", "workload.rate_per_s=150", "workload.requests=30")
    done = zbench_here(tmp_path, "run", *SINGLE, *NAMED, *load, "workload.latency_objective_s=5")
    assert done.returncode == 0, done.stderr
    (record,) = journal(tmp_path)
    assert record.measurement is not None and record.label == "none poisson:150/s"
    requests, window = record.measurement.requests, record.measurement.window
    assert [r.index for r in requests] == list(range(30)) and window.lone == []
    assert all(window.queued_s(r) is not None for r in requests)
    assert "= Serving Benchmark Result =" in done.stdout and "30 (100 %)" not in done.stderr
    lines = dict(
        line.split(":", 1) for line in done.stdout.splitlines() if line.startswith(("Successful", "Request ra"))
    )
    assert {name: value.strip() for name, value in lines.items()} == {
        "Successful requests": "30/30",
        "Request rate": "150.0",
    }
    exported = zbench_here(tmp_path, "export", "s", "--format", "bench-serving")
    assert json.loads(exported.stdout)[0]["zbench"]["within_objective"] == 30


def test_several_clients_are_served_at_once_and_lost_requests_are_counted(tmp_path: Path) -> None:
    load = (
        "workload.arrivals=concurrent",
        "workload.concurrency=4",
        "workload.requests=24",
        "workload.seeds=[0,1,2,3]",
    )
    crowd = ("engine.options={at_once:8,fail_seeds:[2]}",)
    done = zbench_here(tmp_path, "run", *SINGLE, *NAMED, *load, *crowd)
    assert done.returncode == 0, done.stderr
    (record,) = journal(tmp_path)
    assert record.measurement is not None
    window = record.measurement.window
    assert len(window.requests) == 18 and [f.seed for f in window.failures] == [2] * 6
    assert {f.code for f in window.failures} == {"http_status"} and window.arrivals.at_once == 8
    assert "18/24" in done.stdout and "Failed requests: http_status 6." in done.stdout
    assert "6 of 24 requests failed (http_status 6)" in done.stdout, "and so the trial is marked"


def test_a_load_of_which_nothing_came_back_has_failed_with_that_reason(tmp_path: Path) -> None:
    load = ("workload.arrivals=concurrent", "workload.concurrency=2", "workload.seeds=[2]", "workload.warm_up=false")
    done = zbench_here(tmp_path, "run", *SINGLE, *NAMED, *load, "engine.options={at_once:2,fail_seeds:[2]}")
    assert done.returncode == 4
    (record,) = journal(tmp_path)
    assert record.reason is not None
    assert (record.reason.code, record.reason.message) == ("http_status", "503 from the server: busy")


def test_a_load_may_last_longer_than_a_trial_as_long_as_answers_come(tmp_path: Path) -> None:
    """24 requests take 6 s at least, and each of them a fraction of the limit."""
    load = ("workload.arrivals=concurrent", "workload.concurrency=1", "workload.requests=24", "workload.warm_up=false")
    done = zbench_here(
        tmp_path,
        "run",
        *SYNTHETIC,
        *NAMED,
        "workload=single",
        *load,
        "measure.timeout_s=5",
        "engine.options.round_s=0.25",
    )
    assert done.returncode == 0, done.stderr
    (record,) = journal(tmp_path)
    assert record.measurement is not None and len(record.measurement.requests) == 24


SEEK = (
    *SYNTHETIC,
    *QUICK,
    *NAMED,
    "workload=rates",
    "workload.latency_objective_s=0.4",
    "workload.requests=8",
    "engine.options.round_s=0.1",
)


def test_a_stopped_search_for_a_rate_goes_on_where_it_was(tmp_path: Path) -> None:
    process = start(tmp_path, "sweep", *SEEK)
    path = tmp_path / "runs" / "s" / "records.jsonl"
    wait_for(lambda: path.exists() and path.read_text().count("\n") >= 2)  # alone, and one rate
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "To go on: zbench sweep" in said
    before = path.read_text()
    done = zbench_here(tmp_path, "sweep", *SEEK)
    assert done.returncode == 0, done.stderr
    assert path.read_text().startswith(before), "what was measured is kept and not measured again"
    records = journal(tmp_path)
    assert len(records) == len(path.read_text().splitlines()) >= 3
    assert [r.trial.workload.is_load for r in records] == [False, *[True] * (len(records) - 1)]
    assert all(r.reference_id == records[0].trial_id for r in records)
    assert "Rates: none" in done.stdout and "One after another" in done.stdout
    assert (tmp_path / "reports" / "s" / "rates.png").is_file()


def test_a_plan_says_that_rates_are_sought_and_runs_nothing(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, "plan", "pipeline=zimage_tiny", "hardware=cpu", "workload=rates")
    assert done.returncode == 0, done.stderr
    assert "is sought, in about 6 loads of 40 requests each" in " ".join(done.stdout.split())
    assert not (tmp_path / "runs").exists()


def test_the_pages_protocol_is_one_request_and_then_twenty_at_once(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, "sweep", *SYNTHETIC, *NAMED, "workload=b300_page", "engine.options.round_s=0.005")
    assert done.returncode == 0, done.stderr
    one, twenty = (record.measurement for record in journal(tmp_path))
    assert one is not None and twenty is not None
    assert [len(m.requests) for m in (one, twenty)] == [1, 20]
    assert [m.warmup_end for m in (one, twenty)] == ["left_out", "left_out"]
    assert one.cold.load_s is not None and twenty.cold.load_s is None
    report = (tmp_path / "reports" / "s" / "report.md").read_text()
    assert "One request, then 20 at once" in report and "NVIDIA B300 SXM6 AC" in report
    assert "| cold |" in report and "| resident |" in report


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["run", "hardware=b300", "workload=b300_page"],
            "workload.arrivals=concurrent: a load is measured and never projected, and hardware=b300 is not here",
        ),
        (
            ["ab", "hardware=cpu", "--a", "pipeline.steps=2", "--b", "pipeline.steps=3", "workload=b300_page"],
            "workload.arrivals=concurrent: ab measures one request after another",
        ),
        (
            ["sweep", "hardware=cpu", "workload.arrivals=poisson"],
            "workload.rate_per_s=null: name a rate, or workload.latency_objective_s=",
        ),
    ],
)
def test_a_load_that_cannot_be_is_one_line_and_exit_code_2(words: list[str], told: str, tmp_path: Path) -> None:
    done = zbench_here(tmp_path, *words)
    assert done.returncode == 2 and told in done.stderr, done.stderr


def test_the_built_in_pipeline_is_served_from_one_queue(tmp_path: Path) -> None:
    load = ("workload=single", "workload.arrivals=concurrent", "workload.concurrency=2", "workload.warm_up=false")
    size = ("pipeline=zimage_tiny", "hardware=cpu", "pipeline.steps=1", "pipeline.height=64", "pipeline.width=64")
    done = zbench_here(tmp_path, "run", *size, *load, *NAMED)
    assert done.returncode == 0, done.stderr
    (record,) = journal(tmp_path)
    assert record.measurement is not None
    first, second = record.measurement.requests
    assert (record.measurement.window.queued_s(first), second.due_s) == (first.begun_s, 0.0)
    assert second.begun_s is not None and second.begun_s >= first.done_s, "it waits for the one before it"
    assert first.image_sha256 == second.image_sha256


def test_the_built_in_pipeline_makes_each_prompt_at_its_own_size(tmp_path: Path) -> None:
    from PIL import Image

    prompts = tmp_path / "mixed.jsonl"
    prompts.write_text('{"id": "a", "prompt": "a"}\n{"id": "b", "prompt": "b", "width": 96, "steps": 2}\n')
    load = (f"workload.prompts_file={prompts}", "workload.arrivals=concurrent", "workload.concurrency=4")
    size = ("pipeline=zimage_tiny", "hardware=cpu", "pipeline.steps=1", "pipeline.height=64", "pipeline.width=64")
    done = zbench_here(tmp_path, "run", *size, *load, "measure.max_warmup_rounds=1", *NAMED)
    assert done.returncode == 0, done.stderr
    (record,) = journal(tmp_path)
    assert record.measurement is not None
    assert [(r.prompt_id, len(r.steps_s)) for r in record.measurement.requests] == [("a", 1), ("b", 2)] * 2
    made = tmp_path / "runs" / "s" / "artifacts" / record.trial_id
    sizes = {}
    for name in ("a", "b"):
        with Image.open(made / f"{name}-0.png") as picture:
            sizes[name] = picture.size
    assert sizes == {"a": (64, 64), "b": (96, 64)}
