"""What was typed arrives in the job, or is an error that names it as it was typed: nothing vanishes."""

import re
from pathlib import Path
from typing import Any

import pytest
from composing import jobs

from zbench.config import Config, DBCacheConfig
from zbench.errors import ConfigError, OverrideError


def one(*overrides: str, **options: Any) -> Config:
    found = jobs(*overrides, **options).jobs
    assert len(found) == 1
    return found[0].config


def refusal(*overrides: str, **options: Any) -> str:
    with pytest.raises((ConfigError, OverrideError)) as raised:
        jobs(*overrides, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("grids", [True, False])
def test_a_dict_for_a_group_changes_the_choice_and_does_not_replace_it(grids: bool) -> None:
    measure = one("measure=quick", "measure={min_rounds:1}", grids=grids).measure
    assert (measure.min_rounds, measure.max_rounds, measure.budget_s) == (1, 4, 5.0)
    assert one("pipeline={height:512}", grids=grids).pipeline.height == 512
    assert one("measure={min_rounds:1}", "measure=quick", grids=grids).measure == measure, "in either order"


def test_a_dict_is_its_leaves_and_so_replaces_the_grids_axis_of_that_key_only() -> None:
    by_dict, by_key = (
        jobs("cache=dbcache", "cache={max_warmup_steps:3}"),
        jobs("cache=dbcache", "cache.max_warmup_steps=3"),
    )
    assert [job.config for job in by_dict.jobs] == [job.config for job in by_key.jobs]
    assert len(by_dict.jobs) == 3, "the thresholds of the choice's grid"


def test_dicts_reach_nested_and_free_dictionaries_and_what_is_no_group() -> None:
    config = one(
        "engine={options:{a:{b:1},c.d:[1,x]}}", "engine.options.a.e=null", "hardware={efficiency:{gemm:0.5,vae:0.7}}",
        "sweep={name:mine,fresh:true}",
    )  # fmt: skip
    assert config.engine.options == {"a": {"b": 1, "e": None}, "c.d": [1, "x"]}
    assert (config.hardware.efficiency.gemm, config.hardware.efficiency.vae) == (0.5, 0.7)
    assert (config.sweep.name, config.sweep.fresh) == ("mine", True)


def test_a_dict_may_hold_an_axis() -> None:
    heights = [job.config.pipeline.height for job in jobs("pipeline={height:choice(256,512),width:512}").jobs]
    assert heights == [256, 512]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("hardware.efficiency.gemm=1", "hardware.efficiency.gemm", 1.0),
        ("pipeline.hub_id=null", "pipeline.hub_id", None),
        ("pipeline.hub_id='a, b'", "pipeline.hub_id", "a, b"),
        ("pipeline.hub_id=3", "pipeline.hub_id", "3"),
        ("+pipeline.steps=4", "pipeline.steps", 4),
        ("++engine.options.a=1e-3", "engine.options", {"a": 0.001}),
        ("workload.seeds=[3,4]", "workload.seeds", [3, 4]),
        ("pipeline.width=${pipeline.height}", "pipeline.width", 256),
        ("engine.options={}", "engine.options", {}),
        ("engine.options={a:{}}", "engine.options", {"a": {}}),
    ],
)
def test_a_value_arrives_as_the_schema_has_it(override: str, key: str, value: object) -> None:
    node: Any = one(override)
    for part in key.split("."):
        node = getattr(node, part)
    assert node == value and type(node) is type(value)


def test_lists_of_typed_entries_arrive() -> None:
    workload = one("workload.prompts=[{id:a,text:b}]").workload
    assert [(prompt.id, prompt.text, prompt.language) for prompt in workload.prompts] == [("a", "b", "en")]
    assert one("workload=single", "workload.prompts.0.text=x").workload.prompts[0].text == "x"


def test_a_users_value_wins_over_an_experiments() -> None:
    config = one("experiment=full_size", "measure={min_rounds:2}", "pipeline.weights=auto")
    assert (config.measure.min_rounds, config.measure.max_rounds, config.pipeline.weights) == (2, 12, "auto")
    batches = [job.config.pipeline.batch_size for job in jobs("experiment=batches", "pipeline={batch_size:8}").jobs]
    assert batches == [8]


def test_auto_is_settled_beside_a_dict() -> None:
    config = one("hardware=auto", "hardware={title:Mine}", "pipeline=auto", "pipeline={height:128}")
    assert (config.hardware.name, config.hardware.title) == ("cpu", "Mine")
    assert (config.pipeline.name, config.pipeline.height) == ("zimage_tiny", 128)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["compute=eager", "compute=compiled"], "compute"),
        (["compute=eager", "compute=eager,compiled"], "compute"),
        (["pipeline.steps=4", "pipeline.steps=5"], "pipeline.steps"),
        (["++pipeline.steps=4", "pipeline.steps=5"], "pipeline.steps"),
        (["pipeline.steps=4", "pipeline={steps:5}"], "pipeline.steps"),
        (["pipeline={height:512,width:768},{height:768,width:512}", "pipeline.width=512"], "pipeline.width"),
        (["engine.options.a=1", "engine.options={a:{b:2}}"], "engine.options.a"),
        (["engine.options={a:1}", "~engine.options.a"], "engine.options.a"),
        (["cache=dbcache", "~cache"], "cache"),
        (["cache=dbcache", "cache.grid.max_warmup_steps='1,2'", "cache.max_warmup_steps=5"], "cache.max_warmup_steps"),
    ],
)
def test_two_that_decide_the_same_are_both_named(overrides: list[str], key: str) -> None:
    first, second = overrides[-2:]
    assert refusal(*overrides).startswith(f"{first} and {second}: both decide {key}; type one of them")


def test_the_same_twice_is_harmless() -> None:
    found = jobs("compute=eager", "compute=eager", "pipeline={steps:4,height:512}", "pipeline.steps=4")
    assert [job.config.pipeline.steps for job in found.jobs] == [4]
    pairs = "pipeline={height:512,width:768},{height:768,width:512}"
    assert len(jobs(pairs, pairs).jobs) == 2
    assert len(jobs("pipeline={steps:choice(4,5)}", "pipeline.steps=4,5").jobs) == 2


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["pipeline={height:512,height:768}"], r"pipeline={height:512,height:768}: height stands there twice"),
        (["pipeline=zimage_tiny,{height:512}"], r"a name beside a dict; give pipeline=<name> and the dict as two"),
        (["pipeline.steps=4,{a:1}"], r"a value beside a dict; list either values or dicts"),
        (["pipeline={}"], r"pipeline={}: an empty dict is merged into what is there and changes nothing"),
        (["cache=dbcache", "cache.grid={}"], r"changes nothing; ~cache\.grid\.max_warmup_steps takes a key away"),
        (["pipeline={},{}"], r"names no key"),
        (["pipeline={stepz:3}"], r"pipeline={stepz:3}: unknown key pipeline\.stepz; did you mean pipeline\.steps\?"),
        (["pipeline.steps={a:1}"], r"pipeline\.steps={a:1}: pipeline\.steps takes one value and has no keys"),
        (["cache=none", "cache={max_warmup_steps:3}"], r"cache=none has no key max_warmup_steps; these have: cache=db"),
        (["workload.prompts.9.text=x"], r"workload\.prompts has 4 entries"),
        (["pipeline.steps=null"], r"pipeline\.steps=null: "),
        (["pipeline.steps=4.5"], r"pipeline\.steps=4\.5: "),
        (["pipeline.steps=???"], r"pipeline\.steps=\?\?\?: needs a value"),
        (["sweep=mine"], r"sweep=mine: "),
        (["hydra.verbose=true"], r"hydra\.verbose=true: .*hydra\.searchpath alone"),
        (["engine.options=3"], r"engine\.options=3: "),
        (["~pipeline.steps"], r"~pipeline\.steps: pipeline\.steps is part of the schema and stays"),
        (["~execution"], r"~execution: execution is part of the schema and stays"),
        (["~engine.options"], r"~engine\.options\.<key> takes one key of it away"),
        (["~engine.options.a"], r"~engine\.options\.a: unknown key"),
        (["cache=dbcache", "~cache.grid.max_warmup_steps=9"], r"cache\.grid\.max_warmup_steps is 2,4"),
        (["cache=dbcache", "cache.grid.max_warmup_steps=1,2"], r"type cache\.max_warmup_steps=<value>,<value>"),
        (["cache=[none,dbcache]"], r"one choice, not a list; cache=none,dbcache tries each in turn"),
        (["cache=null"], r"cache=null: needs a choice"),
        (["~hardware"], r"hardware: every job needs one"),
        (["cache=3"], r"cache=3: no such choice; there are: custom, dbcache"),
        (["experiment={a:1}"], r"experiment={a:1}: unknown key"),
        (["measure={min_rounds:1},{min_rounds:2}"], r"one value only"),
        (["measure={min_rounds:choice(1,2)}"], r"one value only"),
        (["cach={a:1}"], r"cach={a:1}: unknown key cach\.a; did you mean cache\?"),
    ],
)
def test_what_would_vanish_is_an_error(overrides: list[str], says: str) -> None:
    assert re.search(says, refusal(*overrides))


@pytest.mark.parametrize(
    "override", ["pipeline={height:512},{height:768}", "pipeline={height:choice(512,768)}", "cache.grid.x='1'"]
)
def test_one_run_has_no_axes_in_dicts_either(override: str) -> None:
    assert "use zbench sweep" in refusal(override, grids=False)


def test_deletions_take_keys_of_free_dictionaries_away() -> None:
    thresholds = [job.config.cache for job in jobs("cache=dbcache", "~cache.grid.max_warmup_steps").jobs]
    assert [cache.max_warmup_steps for cache in thresholds if isinstance(cache, DBCacheConfig)] == [4, 4, 4]
    found = jobs("cache=none,dbcache", "~cache.grid.max_warmup_steps")
    assert len(found.jobs) == 4 and "ignored for cache=none" in found.notes[0]


def test_a_typed_grid_decides_the_axes() -> None:
    found = jobs("cache=dbcache", "cache.grid.max_warmup_steps='1,2,3'", "cache.residual_diff_threshold=0.2")
    assert [job.config.cache.max_warmup_steps for job in found.jobs] == [1, 2, 3]  # type: ignore[attr-defined]


def test_a_file_that_chooses_again_does_not_win_in_silence(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /cache: scm\n"
        "hydra:\n  sweeper:\n    params: {cache: 'scm,forced'}\n"
    )
    found = jobs("experiment=mine", "cache=none", config_dir=str(tmp_path))
    assert [job.config.cache.method for job in found.jobs] == ["none"]


def test_the_overrides_of_a_job_say_what_was_typed() -> None:
    asked = (
        "cache=dbcache",
        "~cache.grid.max_warmup_steps",
        "engine.options={a.b:'x y',c:{d:null}}",
        "pipeline={steps:4}",
    )
    found = jobs(*asked).jobs
    for job in found:
        again = jobs(*job.overrides, grids=False).jobs[0]
        assert again.config == job.config
    assert "~cache.grid.max_warmup_steps" in found[0].overrides
