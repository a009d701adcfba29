"""Combinations are what Hydra would compose for each, and a point is what its own overrides compose to."""

from pathlib import Path

import pytest
from composing import jobs, resolve_auto

from zbench import composition
from zbench.composition import combine, expand
from zbench.errors import ConfigError


@pytest.mark.parametrize(
    "asked",
    [
        ("cache=none,dbcache,scm", "compute=eager,compiled", "offload=none,group"),
        ("experiment=demo,masks", "measure={min_rounds:1,max_rounds:9}"),
        ("hardware=cpu,b300", "parallel=single,tp", "cache=none,taylorseer"),
        ("experiment=resolutions", "pipeline.steps=4,8", "compute=eager,compiled"),
    ],
)
def test_every_job_is_what_its_overrides_compose_to(asked: tuple[str, ...]) -> None:
    found = jobs(*asked).jobs
    assert len(found) > 3
    for job in found[:: max(1, len(found) // 6)]:
        assert jobs(*job.overrides, grids=False).jobs[0].config == job.config


def test_hydra_composes_each_choice_once_and_not_each_combination(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    whole = combine.composed
    monkeypatch.setattr(combine, "composed", lambda *args: asked.append(args) or whole(*args))
    overrides = ["hardware=cpu", "pipeline=zimage_tiny", "cache=none,dbcache,scm", "compute=eager,compiled"]
    found = expand([*overrides, "offload=none,dit,vae", "cache.max_warmup_steps=range(1,9)"], resolve_auto).jobs
    assert len(found) == 6 + 6 * 8 * 3 + 6 * 8 * 4
    assert len(asked) <= 1 + 2 + 1 + 2


def test_a_choice_that_changes_another_group_is_composed_in_every_combination(tmp_path: Path) -> None:
    (tmp_path / "compute").mkdir()
    (tmp_path / "compute" / "few_steps.yaml").write_text(
        "# @package _global_\ncompute: {compile: true}\npipeline: {steps: 4}\n"
    )
    found = jobs("compute=eager,few_steps", "cache=none,dbcache_aggressive", config_dir=str(tmp_path)).jobs
    assert {(job.config.compute.compile, job.config.pipeline.steps) for job in found} == {(False, 8), (True, 4)}
    assert len(found) == 6


def test_interpolations_are_resolved_point_by_point() -> None:
    found = jobs("experiment=resolutions", "pipeline.height=256,512").jobs
    assert [(job.config.pipeline.height, job.config.pipeline.width) for job in found] == [(256, 256), (512, 512)]
    typed = jobs("pipeline.width=${pipeline.height}", "pipeline.height=256,512", "compute=eager,compiled").jobs
    assert {(job.config.pipeline.height, job.config.pipeline.width) for job in typed} == {(256, 256), (512, 512)}


def test_every_point_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"pipeline\.height=100: must be a positive multiple"):
        jobs("pipeline.height=256,512,100")
    with pytest.raises(ConfigError, match=r"offload\.num_blocks_per_group=2: a stream copies one block ahead"):
        jobs("offload=group", "offload.num_blocks_per_group=1,2", "offload.use_stream=false,true")


def test_identity_tells_jobs_apart_by_what_they_are() -> None:
    first, again = jobs("cache=dbcache").jobs, jobs("cache=dbcache", "cache.max_warmup_steps=4,2").jobs
    assert {job.identity for job in first} == {job.identity for job in again}
    assert len({job.identity for job in first}) == len(first) == 6


def test_a_sides_own_overrides_take_the_place_of_common_ones() -> None:
    overlay = composition.overlay
    assert overlay(["workload=single"], ["workload=scenes"]) == ["workload=scenes"]
    assert overlay(["workload=single"], ["workload={name:x}"]) == ["workload=single", "workload={name:x}"]
    common = ["pipeline={height:512,width:768}", "pipeline.steps=4"]
    assert overlay(common, ["pipeline.height=256"]) == ["pipeline.width=768", "pipeline.steps=4", "pipeline.height=256"]
    assert overlay(common, ["pipeline={steps:9}"]) == [common[0], "pipeline={steps:9}"]
    assert overlay(["engine.options.a=1"], ["~engine.options.a"]) == ["~engine.options.a"]
