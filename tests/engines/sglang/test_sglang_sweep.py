"""Sweeps of the engine `sglang` as a user runs them, over a program with SGLang's words (tests/fake_sglang.py)."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import TESTS, kill, start, wait_for, workers_of, zbench

from zbench.config import PipelineConfig
from zbench.engines.weights import resolve_weights
from zbench.record import Record
from zbench.store import latest, read_records
from zbench.zimage.layout import preset_folder

QUICK = "measure={min_rounds:2,max_rounds:2,max_warmup_rounds:1,timeout_s:60}"
ENDLESS = "measure={min_rounds:5000,max_rounds:5000,max_warmup_rounds:1,timeout_s:600}"


def words(tmp_path: Path, *more: str, **environment: object) -> list[str]:
    """Of a sweep; the fake is told of by `environment`."""
    model = tmp_path / "Z-Image-Turbo"
    model.mkdir(exist_ok=True)
    told = {"PYTHONPATH": TESTS.parent, "FAKE_LAUNCHES": tmp_path / "launches", **environment}
    return [
        "engine=sglang",
        f"engine.options.program=[{sys.executable},{TESTS / 'fake_sglang.py'}]",
        *(f"engine.options.environment.{name}='{value}'" for name, value in told.items()),
        "engine.loads_weights=false",
        f"pipeline.weights={model}",
        *("pipeline=zimage_turbo", "pipeline.width=64", "pipeline.height=48", "hardware=cpu", "sweep.name=s"),
        *("workload.prompt='a cat'", *([] if ENDLESS in more else [QUICK]), *more),
    ]


def swept(tmp_path: Path, *more: str, code: int = 0, **environment: object) -> dict[str, Record]:
    """The records by their labels."""
    done = zbench(tmp_path, "sweep", *words(tmp_path, *more, **environment))
    assert done.returncode == code, done.stderr
    return records(tmp_path)


def records(tmp_path: Path) -> dict[str, Record]:
    found = latest(read_records(tmp_path / "runs" / "s" / "records.jsonl"))
    return {record.label: record for record in found.values()}


def launches(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "launches"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fakes(tmp_path: Path) -> list[int]:
    """What of the fake server's trees still runs; each process inherits the name of this test's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("FAKE_LAUNCHES", "").startswith(str(tmp_path))
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def interrupted(process: "subprocess.Popen[str]") -> int:
    """Its exit code after Ctrl-C until it ends: two that come at once may count as one."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
    return process.returncode


CACHES = ("cache=none,dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.12,0.4")


def test_one_launch_serves_a_cache_grid_and_the_record_says_what_took_effect(tmp_path: Path) -> None:
    found = swept(tmp_path, *CACHES)
    (launch,) = launches(tmp_path)
    assert not fakes(tmp_path)
    assert launch["flags"]["enable-breakable-cuda-graph"] == "false"  # on by default where it would turn caches off
    assert launch["flags"]["strict-ports"] == "true" and launch["flags"]["host"] == "127.0.0.1"
    assert launch["flags"]["performance-mode"] == "manual"
    assert launch["environment"]["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in launch["environment"] if name.startswith("MALLOC_")]  # those of a worker
    cached = {label: record.measurement.requests[0].cached_steps for label, record in found.items()}
    # The fake skips step k from the second on where 0.5 / (k + 1) lies below the threshold.
    assert cached == {"none": [], "F1B0_W2_MC3_R0.12": [4, 5, 6, 7], "F1B0_W2_MC3_R0.4": [2, 3, 4, 5, 6, 7]}
    assert all(record.state == "COMPLETE" for record in found.values())
    measured = found["none"].measurement
    server, request = measured.effective.server, measured.requests[0]
    assert measured.effective.steps == 8 and server.version == "0.5.23" and server.per_request_cache
    assert server.stages_s == pytest.approx({"text_encode": 0.0125, "denoise": 0.032, "decode": 0.025})
    assert len(server.steps_s) == 8 and measured.effective.doubts == []
    said = (tmp_path / "runs" / "s" / "logs" / server.log).read_text()
    assert "The server is fired up and ready to roll!\n" in said  # what follows depends on how its clients hang up
    assert request.server_s == pytest.approx(0.032) and request.server_peak_bytes == 100 * 2**20
    assert request.latency_s > request.server_s and measured.window.queued_s(request) == 0, "it had the server alone"
    cold = measured.cold
    assert cold.parts_s["first_request"] == cold.first_latency_s and cold.parts_s["launch"] <= cold.load_s
    assert found["F1B0_W2_MC3_R0.4"].measurement.quality[0].ssim < 1
    assert measured.memory.host_peak_rss_bytes > 2**20


def test_a_version_that_ignores_requests_is_launched_for_every_cache(tmp_path: Path) -> None:
    found = swept(tmp_path, *CACHES, FAKE_VERSION="0.5.15.post1")
    told = [launch["environment"] for launch in launches(tmp_path)]
    assert [each["SGLANG_CACHE_DIT_ENABLED"] for each in told] == ["false", "true", "true"]
    assert [each.get("SGLANG_CACHE_DIT_RDT") for each in told] == [None, "0.12", "0.4"]
    assert "enable-breakable-cuda-graph" not in launches(tmp_path)[0]["flags"]  # which it has not
    measured = {label: record.measurement for label, record in found.items()}
    assert [len(m.requests[0].cached_steps) for m in measured.values()] == [0, 4, 6]
    assert not any(m.effective.server.per_request_cache for m in measured.values())


def test_a_server_that_fails_a_trial_is_started_anew_and_the_sweep_completes(tmp_path: Path) -> None:
    misdeeds = {"0.12": "die", "0.2": "status_500", "0.24": "broken", "0.3": "half", "0.35": "small"}
    misdeeds["0.38"] = "status_500_first"
    thresholds = "cache.residual_diff_threshold=0.12,0.2,0.24,0.3,0.35,0.38,0.4"
    more = ("cache=none,dbcache", "cache.max_warmup_steps=2", thresholds)
    found = swept(tmp_path, *more, code=4, FAKE_MISDEEDS=json.dumps(misdeeds))
    failed = {label.rpartition("_R")[2]: r.reason for label, r in found.items() if r.state == "FAILED"}
    codes = {threshold: reason.code for threshold, reason in failed.items()}
    assert codes == {
        "0.12": "server_died",
        "0.2": "http_status",
        "0.24": "broken_reply",
        "0.3": "closed_early",
        "0.35": "other_work",
        "0.38": "http_status",
    }
    died = failed["0.12"]
    assert "ended by itself with exit code 9 during a request" in died.message
    assert "illegal memory access" in died.message and died.log_tail[-1].startswith("RuntimeError: CUDA error")
    assert "500: Error executing request" in failed["0.2"].message
    assert "status 500: Internal Server Error; sglang-" in failed["0.38"].message
    assert failed["0.38"].message.endswith("says: RuntimeError: no rotary_emb"), "not the line of the access"
    assert "1 of 16x16, not 1 of 64x48" in failed["0.35"].message
    assert found["F1B0_W2_MC3_R0.4"].state == "COMPLETE" and found["none"].state == "COMPLETE"
    assert len(launches(tmp_path)) == 7  # one, and one after each failure
    assert not fakes(tmp_path)


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("never_ready", "server_not_ready", "engine.options.ready_timeout_s=1; sglang-"),
        ("dies", "server_died", "exit code 1 before it had made its first image; sglang-"),
    ],
)
def test_a_server_that_never_comes_up_is_one_failure_with_the_end_of_its_log(
    tmp_path: Path, how: str, code: str, said: str
) -> None:
    done = zbench(tmp_path, "run", *words(tmp_path, "engine.options.ready_timeout_s=1", FAKE_START=how))
    assert done.returncode == 4
    reason = records(tmp_path)["none"].reason
    assert reason.code == code and said in reason.message
    ends = {"never_ready": "Loading pipeline components: 17%", "dies": "Tried to allocate 11.50 GiB"}[how]
    assert reason.message.endswith(ends) and reason.log_tail[-1].endswith(ends)
    assert not fakes(tmp_path)


def test_a_flag_of_ones_own_reaches_the_server_and_one_that_it_lacks_is_pruned(tmp_path: Path) -> None:
    swept(tmp_path, "engine.options.flags={warmup-mode:off,quantization:fp8}")
    flags = launches(tmp_path)[0]["flags"]
    assert flags["warmup-mode"] == "off" and flags["quantization"] == "fp8"
    done = zbench(tmp_path, "plan", *words(tmp_path, "engine.options.flags={regional-compile-level:2}"))
    assert done.returncode == 2
    assert "sglang 0.5.23 has no --regional-compile-level (asked for: 2)" in done.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"FAKE_IGNORES": 1}, "no step was skipped with F1B0_W2_MC3_R0.4: it ignored enable_cache_dit"),
        ({"FAKE_GRAPH": 1}, "its CUDA graph turned step skipping off, as its log says"),
        (
            {"FAKE_SETTLES": '{"dit_cpu_offload": true, "ulysses_degree": null}'},
            "sglang serve was given --dit-cpu-offload false and went on with true",
        ),
        ({"FAKE_MORE_STEPS": 1}, "it made 9 steps, not pipeline.steps=8"),
    ],
)
def test_what_took_another_effect_than_was_asked_is_found_and_told(
    tmp_path: Path, environment: dict[str, object], said: str
) -> None:
    more = ("cache=none,dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.4")
    found = swept(tmp_path, *more, **environment)
    differs = found["F1B0_W2_MC3_R0.4"].measurement.effective.doubts
    assert any(said in each for each in differs), differs
    page = (tmp_path / "reports" / "s" / "report.md").read_text()
    assert said in page
    of_all = environment.keys() & {"FAKE_MORE_STEPS", "FAKE_SETTLES"}
    assert bool(of_all) == bool(found["none"].measurement.effective.doubts)


def test_a_forced_mask_that_the_server_did_not_hold_is_told(tmp_path: Path) -> None:
    """The fake knows no masks: its threshold decides, as that of a server which forgot its mask."""
    found = swept(tmp_path, "cache=none,forced", "cache.scm_preset=fast")
    doubts = found["forced_fast_F1B0"].measurement.effective.doubts
    assert doubts == ["forced_fast_F1B0 skips 3 of 8 steps, and the server skipped 6"]
    assert found["none"].measurement.effective.doubts == []


@pytest.mark.parametrize("whose", ["zbench", "worker"])
def test_kill_9_leaves_no_server_and_no_dumps_behind(
    tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    process = start(tmp_path, "sweep", *words(tmp_path, ENDLESS))
    wait_for(lambda: len(launches(tmp_path)) > 0 and len(fakes(tmp_path)) >= 3)
    wait_for(lambda: len(list(scratch.glob("zbench-sglang-*"))) == 1)
    if whose == "zbench":
        kill(process)
    else:
        (worker,) = [p for p in workers_of(process.pid) if "zbench.worker" in p.cmdline()]
        os.kill(worker.pid, signal.SIGSTOP)  # it cannot do anything for its server
        os.kill(worker.pid, signal.SIGKILL)
        interrupted(process)
    wait_for(lambda: not fakes(tmp_path))
    wait_for(lambda: not list(scratch.iterdir()))


def test_ctrl_c_twice_ends_the_server_too(tmp_path: Path) -> None:
    process = start(tmp_path, "run", *words(tmp_path, FAKE_START="never_ready"))
    wait_for(lambda: len(fakes(tmp_path)) >= 2)
    assert interrupted(process) == 130
    wait_for(lambda: not fakes(tmp_path))


def test_a_plan_says_how_many_launches_there_are_and_what_each_costs(tmp_path: Path) -> None:
    def plan(*more: str, **environment: object) -> dict[str, Any]:
        done = zbench(tmp_path, "plan", *words(tmp_path, *CACHES, *more, **environment), "--format", "json")
        assert done.returncode == 0, done.stderr
        planned: dict[str, Any] = json.loads(done.stdout)
        return planned

    alone = "measure.paired=false"  # no turns of the uncached setting, which a new version serves by one launch
    new, old = plan(alone), plan(alone, FAKE_VERSION="0.5.15.post1")
    assert new["launches"] == [{"engine": "sglang", "count": 1, "each_s": 70.0, "measured": False}]
    assert old["launches"] == [{"engine": "sglang", "count": 3, "each_s": 70.0, "measured": False}]
    assert old["expected_sweep_s"] - new["expected_sweep_s"] == pytest.approx(2 * 70)
    assert not launches(tmp_path)  # nothing was started
    shown = zbench(tmp_path, "plan", *words(tmp_path, *CACHES)).stdout
    assert "sglang: 1 launch, about 1 min 10 s each until the first image (an allowance until" in shown
    swept(tmp_path, *CACHES)
    (seen,) = plan()["launches"]
    assert seen["measured"] and 0 < seen["each_s"] < 60


def test_a_served_pipeline_is_swept_through_sglangs_words(tmp_path: Path) -> None:
    """The tiny pipeline itself behind `zbench serve`: the image is a real one, and so is the cache's effect."""
    more = (*CACHES[:2], "cache.residual_diff_threshold=0.4", "engine.options.perf_dumps=false", "pipeline.steps=4")
    found = swept(tmp_path, *more, FAKE_ZBENCH=1)
    assert [record.state for record in found.values()] == ["COMPLETE"] * 2 and len(launches(tmp_path)) == 1
    (likeness,) = found["F1B0_W2_MC3_R0.4"].measurement.quality
    assert 0.3 < likeness.ssim < 1 and not likeness.identical
    assert not fakes(tmp_path)


def test_the_record_knows_the_content_of_the_weights_that_were_served(tmp_path: Path) -> None:
    """The tiny pipeline's folder under the large one's name; the fake reads none of it."""
    tiny = preset_folder("zimage_tiny")
    more = [w for w in words(tmp_path) if not w.startswith(("pipeline.weights=", "engine.loads_weights="))]
    done = zbench(tmp_path, "run", *more, "pipeline.preset=zimage_tiny", f"pipeline.weights={tiny}")
    assert done.returncode == 0, done.stderr
    effective = records(tmp_path)["none"].measurement.effective
    there = resolve_weights(PipelineConfig(name="x", preset="zimage_tiny", weights=str(tiny), height=64, width=64))
    assert effective.weights == "folder"
    assert effective.weights_sha256 == there.content().weights_sha256 is not None
    assert effective.configs_sha256 == there.content().configs_sha256
    gone = zbench(tmp_path, "run", *more, "pipeline.weights=/no/such/folder")
    assert gone.returncode == 2 and "pipeline.weights=/no/such/folder" in gone.stderr


def test_requests_at_once_of_several_sizes_go_to_one_server(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a cat", "width": 32, "height": 32, "steps": 4}\n{"prompt": "a dog"}\n')
    load = ("workload.arrivals=concurrent", "workload.concurrency=4", f"workload.prompts_file={prompts}")
    done = zbench(tmp_path, "run", *[w for w in words(tmp_path, *load) if "a cat" not in w])
    assert done.returncode == 0, done.stderr
    measured = records(tmp_path)["none concurrent:4"].measurement
    assert len(measured.effective.server.steps_s) == 4
    assert measured.effective.doubts == [] and measured.effective.server.probed == 2
    assert not measured.window.failures and len(launches(tmp_path)) == 1


def test_two_caches_take_turns_on_one_server(tmp_path: Path) -> None:
    sides = ("--a", "cache=none", "--b", "cache=dbcache cache.max_warmup_steps=2 cache.residual_diff_threshold=0.4")
    common = [word for word in words(tmp_path) if not word.startswith(("measure=", "sweep."))]
    done = zbench(tmp_path, "ab", *sides, *common)
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(launches(tmp_path)) == 1 and not fakes(tmp_path)
    assert "both on one pipeline" in done.stdout and "FASTER" in done.stdout
