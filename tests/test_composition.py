"""Override strings become the jobs a user would expect: grids per choice, axes replaced one by one."""

from pathlib import Path

import pytest
import yaml
from composing import jobs

from zbench.composition import Jobs, conf_dir
from zbench.config import SCHEMAS, DBCacheConfig
from zbench.errors import ConfigError, OverrideError


def axis(found: Jobs, name: str) -> list[object]:
    return [getattr(job.config.cache, name) for job in found.jobs]


def grid_of(group: str, choice: str) -> dict[str, str]:
    return yaml.safe_load((conf_dir() / group / f"{choice}.yaml").read_text())["grid"]


def test_a_choice_sweeps_its_own_grid() -> None:
    grid = grid_of("cache", "dbcache")
    expected = 1
    for expression in grid.values():
        expected *= len(expression.split(","))
    assert len(jobs("cache=dbcache").jobs) == expected > 1


def test_an_axis_on_the_command_line_replaces_that_axis_only() -> None:
    found = jobs("cache=dbcache", "cache.max_warmup_steps=1,3")
    assert set(axis(found, "max_warmup_steps")) == {1, 3}
    thresholds = [float(t) for t in grid_of("cache", "dbcache")["residual_diff_threshold"].split(",")]
    assert sorted(set(axis(found, "residual_diff_threshold"))) == sorted(thresholds)


def test_a_single_value_fixes_its_axis() -> None:
    found = jobs("cache=dbcache", "cache.max_warmup_steps=3", "cache.residual_diff_threshold=0.2")
    assert [
        (job.config.cache.max_warmup_steps) for job in found.jobs if isinstance(job.config.cache, DBCacheConfig)
    ] == [3]


def test_hydras_grammar_makes_axes() -> None:
    for expression in ("range(1,4)", "choice(1,2,3)", "1,2,3"):
        found = jobs("cache=dbcache", f"cache.max_warmup_steps={expression}", "cache.residual_diff_threshold=0.2")
        assert axis(found, "max_warmup_steps") == [1, 2, 3]
    assert {job.config.cache.method for job in jobs("cache=glob(*)").jobs} == {"none", "dbcache", "scm"}


def test_each_choice_of_several_has_its_own_grid() -> None:
    together = jobs("cache=none,dbcache,scm").jobs
    assert len(together) == 1 + len(jobs("cache=dbcache").jobs) + len(jobs("cache=scm").jobs)


def test_an_axis_a_choice_lacks_is_ignored_there_and_said() -> None:
    found = jobs("cache=none,dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.1,0.2")
    assert [job.config.cache.method for job in found.jobs] == ["none", "dbcache", "dbcache"]
    assert any("cache.max_warmup_steps is ignored for cache=none" in note for note in found.notes)


def test_an_axis_that_every_choice_lacks_is_an_unknown_key() -> None:
    with pytest.raises(
        OverrideError, match=r"cache\.max_warmup_steps=2: cache=none has no such key; these have: cache=dbcache"
    ):
        jobs("cache=none", "cache.max_warmup_steps=2")


def test_duplicates_collapse() -> None:
    assert len(jobs("cache=none,none").jobs) == 1
    assert len(jobs("cache=dbcache", "cache.max_warmup_steps=2,2", "cache.residual_diff_threshold=0.1").jobs) == 1


def test_one_run_uses_defaults_and_refuses_axes() -> None:
    assert len(jobs("cache=dbcache", grids=False).jobs) == 1
    with pytest.raises(OverrideError, match="use zbench sweep"):
        jobs("cache.max_warmup_steps=1,2", "cache=dbcache", grids=False)


def test_defaults_are_those_of_the_vocabulary() -> None:
    cache = jobs("cache=dbcache", grids=False).jobs[0].config.cache
    assert isinstance(cache, DBCacheConfig)
    assert (cache.Fn_compute_blocks, cache.Bn_compute_blocks, cache.max_warmup_steps) == (1, 0, 4)
    assert (cache.residual_diff_threshold, cache.max_continuous_cached_steps) == (0.24, 3)
    assert (cache.enable_taylorseer, cache.taylorseer_order) == (False, 1)


def test_auto_pipeline_follows_the_hardware() -> None:
    assert jobs(grids=False).jobs[0].config.pipeline.name == "zimage_tiny"
    assert jobs("hardware=b300", grids=False).jobs[0].config.pipeline.name == "zimage_turbo"
    kept = jobs("hardware=b300", "pipeline=zimage_tiny", grids=False).jobs[0].config
    assert kept.pipeline.name == "zimage_tiny"


def test_an_experiment_brings_several_choices_and_the_command_line_wins() -> None:
    assert {j.config.cache.method for j in jobs("experiment=demo").jobs} == {"dbcache", "scm"}
    assert {j.config.cache.method for j in jobs("experiment=demo", "cache=scm").jobs} == {"scm"}


def test_a_users_own_folder_adds_choices(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mine.yaml").write_text(
        "defaults:\n  - /schema/cache@_here_: dbcache\n  - _self_\nmax_warmup_steps: 7\n"
    )
    assert axis(jobs("cache=mine", config_dir=str(tmp_path)), "max_warmup_steps") == [7]


def test_the_overrides_of_a_job_give_the_job_again() -> None:
    for job in jobs("cache=dbcache,scm").jobs:
        again = jobs(*job.overrides, grids=False).jobs[0]
        assert again.config.cache == job.config.cache


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["cache=nope"], r"cache=nope: no such choice; there are: .*dbcache"),
        (["cach=dbcache"], r"cach=dbcache: unknown key; did you mean cache\?"),
        (["pipeline.stepz=3"], r"pipeline\.stepz=3: unknown key; did you mean pipeline\.steps\?"),
        (["+pipeline.extra=3"], r"pipeline\.extra=3: unknown key"),
        (
            ["cache.max_warmup_step=2"],
            r"unknown key; cache=none has: method; did you mean cache\.max_warmup_steps\? These have it: cache=dbcache",
        ),
        (["cache.nothing_like_it=2"], r"unknown key; cache=none has: method$"),
        (["pipeline.steps=many"], r"pipeline\.steps=many: "),
        (["pipeline.steps=0"], r"pipeline\.steps=0: must be at least 1"),
        (["pipeline.height=100"], r"pipeline\.height=100: must be a positive multiple of 16"),
        (
            ["cache=dbcache", "cache.residual_diff_threshold=-0.1"],
            r"cache\.residual_diff_threshold=-0\.1: must be at",
        ),
        (
            ["cache=dbcache", "cache.residual_diff_threshold=nan"],
            r"cache\.residual_diff_threshold=nan: must be a finite",
        ),
        (["cache=dbcache", "cache.taylorseer_order=3"], r"cache\.taylorseer_order=3: must be at most 2"),
        (["cache.x=[1"], r"cache\.x=\[1: "),
        (["measure.max_rounds=1"], r"measure\.max_rounds=1: must be at least measure\.min_rounds"),
        (["workload.prompts=[]"], r"workload\.prompts=\[\]: needs at least one prompt"),
        (["compute.dtype=int3"], r"compute\.dtype=int3: must be one of auto, float32, bfloat16"),
        (["~cache"], r"cache: every job needs one, such as cache=<name>"),
    ],
)
def test_bad_input_is_one_line_naming_key_and_value(overrides: list[str], says: str) -> None:
    with pytest.raises((ConfigError, OverrideError), match=says) as raised:
        jobs(*overrides)
    assert "\n" not in str(raised.value)


def test_a_missing_config_dir_is_named() -> None:
    with pytest.raises(OverrideError, match="--config-dir nowhere: no such folder"):
        jobs(config_dir="nowhere")


def every_choice() -> list[tuple[str, str]]:
    return [(p.parent.name, p.stem) for p in sorted(conf_dir().glob("*/*.yaml"))]


@pytest.mark.parametrize(("group", "choice"), every_choice())
def test_every_config_of_every_group_composes(group: str, choice: str) -> None:
    blanks = {"custom": ["cache.method=mine", "cache.target=a:B"]}.get(choice, [])
    assert jobs(f"{group}={choice}", *blanks).jobs


def test_every_group_has_a_schema_and_a_folder() -> None:
    folders = {p.name for p in conf_dir().iterdir() if p.is_dir()}
    assert folders == set(SCHEMAS) | {"experiment"}
