"""What a worker measures of an engine on a known surface is that surface, and a record made without a worker is too."""

from pathlib import Path

import pytest
from commands import zbench_here
from factories import trial
from surfaced import ran, true_ssim
from surfaces import SURFACES, Surface, painted, surface

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig, OffloadConfig, SCMConfig
from zbench.quality.fidelity import ssim
from zbench.space import arrange
from zbench.store import read_records

SAMPLE = "a large red circle", 0
GRID = ("cache=dbcache", "cache.max_warmup_steps=4", "cache.residual_diff_threshold=0.15,0.2,0.3")
HERE = ("--config-dir", str(Path(__file__).parents[1] / "conf"), "engine=surface", "hardware=cpu")


@pytest.mark.parametrize("wanted", [1.0, 0.999, 0.97, 0.8, 0.4])
def test_an_image_is_as_like_as_it_was_asked_for(wanted: float) -> None:
    assert ssim(painted(*SAMPLE, wanted), painted(*SAMPLE, 1.0)) == pytest.approx(wanted, abs=0.003)


@pytest.mark.parametrize("name", SURFACES)
def test_steps_are_skipped_by_dbcaches_rules(name: str) -> None:
    found = surface(name)
    cache = DBCacheConfig(max_warmup_steps=2, max_continuous_cached_steps=2, residual_diff_threshold=0.3)
    skipped, diffs = found.skipping(trial(cache), SAMPLE)
    assert min(map(int, diffs)) == 2 and skipped == [step for step in range(8) if diffs.get(str(step), 1) < 0.3]
    always = found.skipping(trial(DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=1.0)), SAMPLE)
    assert always == ([2, 3, 4, 6, 7], {}), "three in a row, and nothing is compared"
    assert found.skipping(trial(DBCacheConfig(residual_diff_threshold=0)), SAMPLE) == ([], {})
    assert found.skipping(trial(), SAMPLE) == ([], {})
    forced = SCMConfig(max_warmup_steps=0, scm_preset="fast", scm_policy="static")
    steps, compared = found.skipping(trial(forced), SAMPLE)
    assert len(steps) == 3 and 0 not in steps and not compared


def test_inert_knobs_change_nothing_and_others_do() -> None:
    plain, inert = surface("smooth"), surface("inert")
    fused = trial().compute.__class__(qkv="fused")
    assert inert.latency_s(trial(compute=fused), 0) == inert.latency_s(trial(), 0)
    assert plain.latency_s(trial(compute=fused), 0) < plain.latency_s(trial(), 0)


def test_offload_takes_memory_for_time_and_changes_no_image() -> None:
    found, moved = surface("smooth"), trial(offload=OffloadConfig(mode="all"))
    assert found.memory_bytes(moved) < found.memory_bytes(trial())
    assert found.latency_s(moved, 0) > found.latency_s(trial(), 0)
    assert found.ssim(moved, SAMPLE, []) == 1


def test_what_does_not_fit_runs_out_of_memory() -> None:
    space = arrange([trial()])
    assert ran(Surface("small", 0, device_gib=20.0), space.placed[0]).state == "FAILED"


def test_a_worker_measures_the_surface(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, "sweep", *HERE, "engine.options.seed=3", *GRID, "sweep.name=s")
    assert done.returncode == 0, done.stderr
    known, records = surface("smooth", 3), read_records(tmp_path / "runs" / "s" / "records.jsonl")
    assert len(records) == 4
    for row, record in view_of(records).pairs:
        made = [(p.text, seed) for p in record.trial.workload.prompts for seed in record.trial.workload.seeds]
        skipped = [known.skipping(record.trial, sample)[0] for sample in made]
        assert row.cached_steps == pytest.approx(sum(map(len, skipped)) / len(skipped))
        assert row.device_memory_bytes == known.memory_bytes(record.trial)
        if not row.is_reference:
            assert row.ssim_worst == pytest.approx(true_ssim(known, record.trial), abs=0.003)
            latencies = [known.latency_s(record.trial, len(steps)) for steps in skipped]
            assert row.latency_median_s is not None and min(latencies) <= row.latency_median_s <= max(latencies)
