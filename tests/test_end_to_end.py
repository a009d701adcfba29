"""The main jobs on the real engine: the demo, killed twice on its way, and a projection onto absent hardware."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import loras
import psutil
import pytest
from commands import kill, start, wait_for, workers_of, zbench

from zbench.measurement import Measurement
from zbench.record import Record
from zbench.store import read_records

pytestmark = pytest.mark.timeout(1800)  # a busy machine takes many times the minute that an idle one takes

SMALL = ("pipeline.height=64", "pipeline.width=64")  # what is asked of the demo holds at any size
SHORT = ("measure=quick", "measure.budget_s=0.5")
DEMO = ("sweep", "experiment=demo", *SMALL, *SHORT, "sweep.name=demo")
ENDS_WITHIN_S = 30


def records(folder: Path, name: str) -> list[Record]:
    journal = folder / "runs" / name / "records.jsonl"
    return read_records(journal) if journal.exists() else []


def measured(record: Record) -> Measurement:
    assert record.measurement is not None
    return record.measurement


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was killed twice with -9 and then finished."""
    folder = tmp_path_factory.mktemp("demo")
    orphans: list[psutil.Process] = []
    for _ in range(2):
        before = len(records(folder, "demo"))  # those of a block come at once
        process = start(folder, *DEMO)
        wait_for(lambda n=before: len(records(folder, "demo")) > n, timeout_s=900)
        wait_for(lambda p=process: bool(workers_of(p.pid)))
        orphans += kill(process)
    _, alive = psutil.wait_procs(orphans, timeout=ENDS_WITHIN_S)
    assert not alive, f"a worker outlived its parent by {ENDS_WITHIN_S} s"
    done = zbench(folder, *DEMO, timeout_s=900)
    assert done.returncode == 0, done.stderr
    (folder / "table.txt").write_text(done.stdout)
    return folder


def test_two_kills_lose_and_double_no_trial_of_the_demo(demo: Path) -> None:
    counts = Counter(record.trial_id for record in records(demo, "demo"))
    assert len(counts) == 19 and set(counts.values()) == {1}


def test_the_demo_prints_one_row_a_trial(demo: Path) -> None:
    table = (demo / "table.txt").read_text()
    assert all(record.label in table for record in records(demo, "demo"))
    assert "speed-up" in table and "SSIM" in table


def test_the_demo_again_finishes_from_the_journal(demo: Path) -> None:
    before = (demo / "runs" / "demo" / "records.jsonl").read_bytes()
    again = zbench(demo, *DEMO)
    assert again.returncode == 0 and again.stderr.count("from the journal") == len(records(demo, "demo"))
    assert (demo / "runs" / "demo" / "records.jsonl").read_bytes() == before


def test_a_resident_pipeline_is_loaded_once_a_worker(demo: Path) -> None:
    loads = [measured(r).cold.load_s for r in records(demo, "demo")]
    assert sum(seconds is not None for seconds in loads) == 3  # one for each of the three parents


def test_measurements_are_whole(demo: Path) -> None:
    for record in records(demo, "demo"):
        m = measured(record)
        assert record.source == "measured" and m.memory.host_peak_rss_bytes
        for one in m.requests:
            assert len(one.steps_s) == 8
            assert sum(one.stages_s.values()) <= one.latency_s
            assert set(one.stages_s) == {"text_encode", "denoise", "decode"}
        if not record.is_baseline:
            assert m.quality is not None and len(m.quality) == len({(r.prompt_id, r.seed) for r in m.requests})


def test_some_settings_skip_steps_and_that_costs_likeness(demo: Path) -> None:
    by_label = {record.label: measured(record) for record in records(demo, "demo")}
    base = by_label["none"]
    assert all(not one.cached_steps for one in base.requests)
    skipping = [m for m in by_label.values() if any(one.cached_steps for one in m.requests)]
    assert skipping
    for m in by_label.values():
        assert m.quality is not None or m is base
        for quality in m.quality or []:
            rounds = [r for r in m.requests if (r.prompt_id, r.seed) == (quality.prompt_id, quality.seed)]
            assert quality.identical == (not any(r.cached_steps for r in rounds))


def test_the_report_stands_alone(demo: Path) -> None:
    report = demo / "reports" / "demo"
    names = {path.name for path in report.iterdir()}
    assert {"report.md", "report.html", "summary.csv"} <= names and any(name.endswith(".png") for name in names)
    page = (report / "report.html").read_text()
    assert 'src="http' not in page and "<script src" not in page and "data:image/png;base64" in page


def calm(record: Record) -> Record:
    """As a machine without other load measures it; what a busy one measures, `recommend` does not trust."""
    m = measured(record)
    requests = [replace(request, disturbances=[]) for request in m.requests]
    return replace(record, measurement=replace(m, validity=[], window=replace(m.window, requests=requests)))


def test_recommend_and_report_read_what_the_sweep_left(demo: Path, tmp_path: Path) -> None:
    journal = tmp_path / "runs" / "demo" / "records.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text("".join(f"{calm(record).to_json()}\n" for record in records(demo, "demo")))
    chosen = zbench(tmp_path, "recommend", "demo", "--min-ssim", "0.9", "--format", "json")
    assert chosen.returncode == 0, chosen.stderr
    assert "sglang serve" in chosen.stdout and "SGLANG_CACHE_DIT" in chosen.stdout
    again = zbench(demo, "report", "demo", "--out", "again", "--format", "json")
    assert again.returncode == 0 and len(json.loads(again.stdout)["trials"]) == len(records(demo, "demo"))
    assert (demo / "again" / "report.html").read_bytes() == (demo / "reports" / "demo" / "report.html").read_bytes()


def test_absent_hardware_is_projected_and_every_figure_says_so(tmp_path: Path) -> None:
    done = zbench(
        tmp_path,
        *("sweep", "hardware=b300", "cache=dbcache", "cache.max_warmup_steps=2", "measure=quick", "sweep.name=b300"),
        timeout_s=900,
    )
    assert done.returncode == 0, done.stderr
    assert "not validated on Z-Image-Turbo" in done.stdout.replace("Not", "not")
    for record in records(tmp_path, "b300"):
        m = measured(record)
        assert record.source == "projected" and record.config["pipeline"]["name"] == "zimage_turbo"
        assert m.sources == {
            "latency": "projected",
            "memory": "projected",
            "cached_steps": "proxy",
            "quality": "proxy",
        }
        assert m.projection is not None and len(m.projection.rounds) == len(m.requests)
        if record.is_baseline:
            assert m.projection.floor_s < min(r.latency_s for r in m.projection.rounds)
        else:
            assert m.projection.cached_step_s < m.projection.computed_step_s
    page = (tmp_path / "reports" / "b300" / "report.md").read_text()
    assert "SGLang" in page and "0.94" in page
    refused = zbench(tmp_path, "recommend", "b300")
    assert refused.returncode == 2 and "--allow-proxy" in refused.stderr
    allowed = zbench(tmp_path, "recommend", "b300", "--allow-proxy", "--min-ssim", "0.5")
    assert allowed.returncode == 0 and "not validated on Z-Image-Turbo" in allowed.stdout.replace("Not", "not")


def test_a_lora_fused_and_not_judged_against_the_plain_pipeline(tmp_path: Path) -> None:
    style = loras.saved(tmp_path / "style.safetensors", loras.diffusers())
    small = ("pipeline.height=64", "pipeline.width=64", "pipeline.steps=2", "workload=single", "hardware=cpu")
    short = ("measure=quick", "measure.min_rounds=1", "measure.max_rounds=1", "measure.max_warmup_rounds=0")
    asked = (f"pipeline.lora=null,{style}", "pipeline.lora_fused=true,false", "sweep.reference_weights=auto")
    done = zbench(tmp_path, "sweep", "sweep.name=style", *small, *short, *asked, timeout_s=900)
    assert done.returncode == 0, done.stderr
    plain, *styled = records(tmp_path, "style")
    assert [r.label for r in (plain, *styled)] == ["none", "none lora:fused", "none lora:unfused"]
    assert {r.reference_id for r in (plain, *styled)} == {plain.trial_id}
    for record in styled:
        (image,) = measured(record).quality or []
        assert not image.identical and image.latent_rel_error and image.latent_rel_error > 0.05
        assert measured(record).reference_sha256["weights"] == measured(plain).effective.weights_sha256
        assert measured(record).effective.lora_sha256 is not None
    assert "against those of pipeline.weights=auto without a LoRA" in done.stdout
