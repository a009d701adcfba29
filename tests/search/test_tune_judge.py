"""How tune holds a trial against limits and objective: as a recommendation does, of what is to be trusted."""

from dataclasses import replace
from typing import Any

import pytest
from factories import complete, trial

from zbench.analysis.constraints import Limits, constraints_of
from zbench.analysis.objectives import AIMS, Objective, cost
from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.search.tune.judge import Judge, Told

CACHED = trial(DBCacheConfig())


def told(**figures: Any) -> Told:
    record = complete(CACHED, latency_s=1.0, ssim=0.9, lpips=0.1, prompt_share=0.8, vram_gib=10.0)
    return Told(record.trial, record, replace(view_of([record]).trials[0], **figures))


def judge(objective: Objective = "latency", **limits: float) -> Judge:
    return Judge(constraints_of(Limits(**limits)), objective)


@pytest.mark.parametrize(
    ("limit", "kept", "missed"),
    [
        ("max_vram_gib", 11, 9),
        ("min_ssim", 0.85, 0.95),
        ("min_psnr_db", 25, 35),
        ("max_lpips", 0.2, 0.05),
        ("min_prompt_fidelity", 0.85, 0.95),
        ("min_clip_score", 20, 30),
        ("max_latency_s", 1.5, 0.5),
    ],
)
def test_each_limit_is_kept_or_missed(limit: str, kept: float, missed: float) -> None:
    one = told(clip_mean=25.0)
    assert judge(**{limit: kept}).satisfies(one) and not judge(**{limit: missed}).satisfies(one)
    assert judge(**{limit: missed}).allows(one) == (limit == "max_latency_s"), "later decisions may meet that one"


@pytest.mark.parametrize("limit", ["max_vram_gib", "min_clip_score"])
def test_what_nobody_could_judge_is_not_kept(limit: str) -> None:
    assert not judge(**{limit: 1}).satisfies(told(device_memory_bytes=None, clip_mean=None))


@pytest.mark.parametrize(
    ("objective", "better"), [("latency", "slow"), ("throughput", "batch"), ("energy", "frugal")], ids=str
)
def test_an_objective_chooses_by_its_own_figure(objective: Objective, better: str) -> None:
    """Of three that are each the best in one way."""
    every = {
        "slow": told(latency_median_s=0.9, images_per_s=1.0, joules_an_image=300.0),
        "batch": told(latency_median_s=2.0, images_per_s=2.0, joules_an_image=200.0),
        "frugal": told(latency_median_s=3.0, images_per_s=0.5, joules_an_image=100.0),
    }
    assert judge(objective).best(list(every.values()), None) is every[better]


def test_one_within_the_limit_on_latency_is_better_than_a_cheaper_one_beyond_it() -> None:
    quick, frugal = told(latency_median_s=1.0, joules_an_image=300.0), told(latency_median_s=2.0, joules_an_image=100.0)
    assert judge("energy", max_latency_s=1.5).best([quick, frugal], None) is quick
    assert judge("energy", max_latency_s=0.5).best([quick, frugal], None) is frugal, "none is within it so far"


def test_what_is_not_to_be_trusted_or_was_not_timed_never_stands() -> None:
    for one in (told(caveats=("the machine was busy",)), told(missing=(("latency", "quality_only"),))):
        assert judge().best([one], None) is None and judge(min_ssim=0.85).keeps_likeness(one)


def test_a_cost_is_of_an_image_and_by_the_speedup_where_that_is_known() -> None:
    row = told().row
    assert cost("latency", replace(row, images=2)) == pytest.approx(0.5)
    assert cost("latency", replace(row, speedup=2.0), replace(row, latency_median_s=3.0)) == pytest.approx(1.5)
    assert cost("throughput", replace(row, images_per_s=4.0)) == 0.25
    assert all(cost(name, replace(row, joules_an_image=None)) == float("inf") for name in ("energy",))  # type: ignore[arg-type]
    assert set(AIMS) == {"latency", "throughput", "energy", "quality"}


def test_a_reference_is_as_like_as_can_be_also_where_no_speedup_is_known() -> None:
    reference = told(is_reference=True, ssim_worst=None, ssim_mean=None, speedup=None)
    assert AIMS["quality"].read(reference.row) == 1 and AIMS["quality"].read(told(speedup=None).row) == 0.9
