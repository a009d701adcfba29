"""Sweeps over a server as a user runs them: zbench's own, and servers that misbehave."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import SYNTHETIC, serving, zbench
from images_server import Call, images_server, picture

from zbench.record import Record
from zbench.store import read_records

KEY = "sk-do-not-show/me+1"
BARE = ("pipeline=zimage_tiny", "hardware=cpu")
TINY = (*BARE, "pipeline.height=64", "pipeline.width=64")
SHORT = ("measure=quick", "measure.budget_s=0.2", "measure.min_rounds=1", "measure.max_rounds=2")
ONE = ("workload=single", "sweep.name=s")
FOUR = ("cache=dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.1,0.24,0.4")
"""Three settings and their reference, which has none."""


def sweep(cwd: Path, url: str, *args: str) -> Any:
    words = ("sweep", "engine=openai_images", f"engine.base_url={url}", *TINY, *SHORT, *ONE)
    return zbench(cwd, *words, *args, timeout_s=280)


def records(cwd: Path) -> list[Record]:
    return read_records(cwd / "runs" / "s" / "records.jsonl")


def by_threshold(found: list[Record]) -> dict[Any, Record]:
    return {getattr(record.trial.cache, "residual_diff_threshold", None): record for record in found}


def calm(journal: Path) -> None:
    """As a machine without other load would have measured it: each skipped step saves a twentieth of a second."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line["measurement"]["validity"] = []
        line["measurement"]["warmup_latencies_s"] = [1.0]
        for r in line["measurement"]["window"]["requests"]:
            r |= {"disturbances": [], "latency_s": 1 - 0.05 * len(r["cached_steps"]), "stages_s": {}}
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def paints(call: Call) -> None:
    """An image of the size asked for, by its seed and cache; any other place is none."""
    if call.path.endswith("/generations"):
        call.images(picture(call.body["seed"] + 7 * call.body["enable_cache_dit"], (64, 64)), inference_time_s=0.001)
    else:
        call.answer(404, {})


def test_a_grid_over_zbench_serve_is_measured_reported_and_recommended(tmp_path: Path) -> None:
    with serving(tmp_path, *TINY) as (_, url):
        done = sweep(tmp_path, url, *FOUR)
        assert done.returncode == 0, done.stderr
        again = sweep(tmp_path, url, *FOUR)
    assert again.stderr.count("from the journal") == 4
    found = by_threshold(records(tmp_path))
    assert set(found) == {None, 0.1, 0.24, 0.4} and {r.state for r in found.values()} == {"COMPLETE"}
    skipped = {threshold: record.measurement.requests[0].cached_steps for threshold, record in found.items()}
    assert skipped[None] == [] and len(skipped[0.4]) > len(skipped[0.1])
    for threshold, record in found.items():
        measured = record.measurement
        assert measured is not None and measured.effective.doubts == []
        [one, *_] = measured.requests
        assert one.server_s is not None and one.begun_s is None and 0 < one.server_s < one.latency_s
        assert one.server_peak_bytes
        assert measured.effective.steps == 8 and measured.effective.other["models"] == ["zimage_tiny"]
        assert measured.memory.host_peak_rss_bytes, "the server's own processes are watched"
        assert (measured.quality is None) == (threshold is None)
    report = zbench(tmp_path, "report", "s")
    assert report.returncode == 0, report.stderr
    page = next(tmp_path.glob("reports/**/report.md")).read_text()
    assert f"**Server**: {url}, models: zimage_tiny" in page and "judged against its own without a cache" in page
    calm(tmp_path / "runs" / "s" / "records.jsonl")
    advice = zbench(tmp_path, "recommend", "s", "--min-ssim", "-1")
    assert advice.returncode == 0, advice.stderr
    assert advice.stdout.startswith("F1B0_W2_MC3_R0.4: "), "which skips most"
    assert f"measured with engine=openai_images at {url}" in advice.stdout
    assert f"engine.base_url={url}" in advice.stdout, "the line that runs it again"


def test_a_server_that_accepts_a_cache_and_ignores_it_is_found_out(tmp_path: Path) -> None:
    """As SGLang 0.5.15.post1 does."""

    def ignores(call: Call) -> None:
        if call.path.endswith("/generations"):
            call.images(picture(call.body["seed"], (64, 64)))
        else:
            call.answer(404, {})

    with images_server(ignores) as server:
        done = sweep(
            tmp_path, server.url, "cache=dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.4"
        )
    assert done.returncode == 0, done.stderr
    found = by_threshold(records(tmp_path))
    [doubt] = [said for said in found[0.4].measurement.validity if "ignored the setting" in said]
    assert doubt.startswith("the server was asked for F1B0_W2_MC3_R0.4, and each of 1 images is the uncached one")
    assert not any("ignored" in said for said in found[None].measurement.validity)
    assert "ignored the setting" in done.stdout
    assert "ignored the setting" in next(tmp_path.glob("reports/**/report.md")).read_text()
    advice = zbench(tmp_path, "recommend", "s", "--min-ssim", "0.1")
    assert not advice.stdout.startswith("F1B0"), advice.stdout


def test_each_fault_is_one_failed_trial_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    def misbehaves(call: Call) -> None:
        threshold = (call.body.get("cache_dit_params") or {}).get("residual_diff_threshold")
        if threshold == 0.1:
            call.answer(500, {"error": {"message": "the pipeline broke"}})
        elif threshold == 0.2:
            call.answer(200, {"data": [{"b64_json": picture()[:200]}]})
        elif threshold == 0.3:
            call.head(200, content_length="1000")
            call.write(b'{"data"')
            call.hang_up()
        else:
            paints(call)

    thresholds = "cache.residual_diff_threshold=0.1,0.2,0.3,0.4"
    with images_server(misbehaves) as server:
        done = sweep(
            tmp_path, server.url, "cache=dbcache", "cache.max_warmup_steps=2", thresholds, "engine.options.ready_s=0.01"
        )
        assert done.returncode == 4, done.stderr
        found = by_threshold(records(tmp_path))
        assert found[None].state == found[0.4].state == "COMPLETE"
        reasons = {threshold: found[threshold].reason for threshold in (0.1, 0.2, 0.3)}
        codes = {threshold: reason.code for threshold, reason in reasons.items() if reason is not None}
        assert codes == {0.1: "http_status", 0.2: "broken_reply", 0.3: "closed_early"}
        assert "status 500: the pipeline broke" in str(reasons[0.1]) and "Traceback" not in done.stderr
        server.script = paints  # mended: what was the server's end is tried again, what was an answer is not
        again = sweep(
            tmp_path, server.url, "cache=dbcache", "cache.max_warmup_steps=2", thresholds, "engine.options.ready_s=0.01"
        )
    assert again.returncode == 4
    assert "is tried again: its server did not answer (closed_early)" in again.stderr
    after = by_threshold(records(tmp_path))
    assert [after[threshold].state for threshold in (0.1, 0.2, 0.3)] == ["FAILED", "FAILED", "COMPLETE"]


def test_a_server_that_is_killed_fails_what_is_left_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """The synthetic engine ends its server by kill -9 in the middle of a request with a threshold of 0.2.

    The three settings take turns, so none of them has enough.
    """
    side = ("pipeline.height=32", "pipeline.width=32")
    words = (
        *side,
        "cache=dbcache",
        "cache.max_warmup_steps=2",
        "cache.residual_diff_threshold=0.1,0.2,0.3",
        "engine.options.ready_s=0.01",
    )
    with serving(tmp_path, *SYNTHETIC, *side, "engine.options.kill_on=0.2") as (server, url):
        done = zbench(tmp_path, "sweep", "engine=openai_images", f"engine.base_url={url}", *BARE, *SHORT, *ONE, *words)
        server.communicate(timeout=60)
    assert server.returncode == -signal.SIGKILL and done.returncode == 4, done.stderr
    found = by_threshold(records(tmp_path))
    assert found[None].state == "COMPLETE"
    codes = [reason.code for t in (0.1, 0.2, 0.3) if (reason := found[t].reason) is not None]
    assert codes == ["unreachable", "closed_early", "unreachable"]
    with serving(tmp_path, *SYNTHETIC, *side, port=int(url.rpartition(":")[2])):
        again = zbench(tmp_path, "sweep", "engine=openai_images", f"engine.base_url={url}", *BARE, *SHORT, *ONE, *words)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("its server did not answer") == 3 and again.stderr.count("from the journal") == 1
    assert {record.state for record in by_threshold(records(tmp_path)).values()} == {"COMPLETE"}


def test_a_key_appears_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a sweep that completes nor of one whose server repeats it in every error."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def repeats(call: Call) -> None:
        said = call.headers["authorization"]
        assert said == f"Bearer {KEY}"
        if call.body.get("enable_cache_dit"):
            call.answer(500, {"error": {"message": f"{said} is no key", "as": KEY}})
        else:
            call.images(picture(size=(64, 64)), key=KEY, zbench={"cache": KEY, "steps": 8})

    with images_server(repeats) as server:
        done = sweep(
            tmp_path, server.url, "cache=dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.4"
        )
        assert done.returncode == 4, done.stderr
        asked = [call.headers["authorization"] for call in server.calls]
        page = zbench(tmp_path, "report", "s")
        advice = zbench(tmp_path, "recommend", "s")
    assert set(asked) == {f"Bearer {KEY}"}
    texts = [each for made in (done, page, advice) for each in (made.stdout, made.stderr)]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and any(b"*** is no key" in held for held in files)
    escaped = json.dumps(KEY).strip('"')
    assert not any(key in text for text in texts for key in (KEY, escaped))
    assert not any(KEY.encode() in held for held in files)


def test_a_key_that_cannot_be_sent_is_one_line_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk two words")
    done = sweep(tmp_path, "http://127.0.0.1:9")
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    [line] = [line for line in done.stderr.splitlines() if "error" in line]
    assert "engine.options.key_env=OPENAI_API_KEY" in line and "two words" not in done.stderr + done.stdout
