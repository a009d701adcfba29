"""A list of dicts is one axis: the keys of each dict are set together."""

from composing import jobs

from zbench.composition import Jobs
from zbench.config import DBCacheConfig

SIZES = "pipeline={height:512,width:768},{height:768,width:512}"


def sizes(found: Jobs) -> list[tuple[int, int]]:
    return [(job.config.pipeline.height, job.config.pipeline.width) for job in found.jobs]


def test_pairs_are_one_axis() -> None:
    assert sizes(jobs(SIZES)) == [(512, 768), (768, 512)]
    assert sizes(jobs("pipeline=choice({height:512,width:768},{height:768,width:512})")) == sizes(jobs(SIZES))


def test_pairs_multiply_with_other_axes() -> None:
    found = jobs(SIZES, "pipeline.steps=4,8")
    assert sizes(found) == [(512, 768), (512, 768), (768, 512), (768, 512)]
    assert [job.config.pipeline.steps for job in found.jobs] == [4, 8, 4, 8]


def test_a_dict_without_a_key_leaves_it_as_the_choice_has_it() -> None:
    assert sizes(jobs("pipeline={height:512},{width:768},{}")) == [(512, 256), (256, 768), (256, 256)]
    found = jobs("cache=dbcache", "cache={max_warmup_steps:1},{residual_diff_threshold:0.3}").jobs
    caches = [job.config.cache for job in found]
    assert [(c.max_warmup_steps, c.residual_diff_threshold) for c in caches if isinstance(c, DBCacheConfig)] == [
        (1, 0.24),
        (4, 0.3),
    ], "both keys' grid axes are replaced"


def test_pairs_replace_an_experiments_axis_and_a_single_key_leaves_a_files_pairs_the_others() -> None:
    found = jobs("experiment=batches", "pipeline={batch_size:8,steps:4},{batch_size:3,steps:9}").jobs
    assert [(job.config.pipeline.batch_size, job.config.pipeline.steps) for job in found] == [(8, 4), (3, 9)]


def test_a_files_pairs_keep_the_keys_that_nobody_typed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "pairs.yaml").write_text(
        f"# @package _global_\nhydra:\n  sweeper:\n    params:\n      pipeline: '{SIZES.partition('=')[2]}'\n"
    )
    assert sizes(jobs("experiment=pairs", config_dir=str(tmp_path))) == [(512, 768), (768, 512)]
    found = jobs("experiment=pairs", "pipeline.height=256", config_dir=str(tmp_path))
    assert sizes(found) == [(256, 768), (256, 512)]


def test_a_choice_takes_of_a_pair_the_keys_it_has() -> None:
    found = jobs(
        "cache=dbcache,scm",
        "cache={max_warmup_steps:1,scm_preset:slow},{max_warmup_steps:2,scm_preset:fast}",
        "cache.residual_diff_threshold=0.2",
    )
    caches = [job.config.cache for job in found.jobs]
    assert [(c.method, c.max_warmup_steps) for c in caches if isinstance(c, DBCacheConfig)] == [
        ("dbcache", 1),
        ("dbcache", 2),
        ("scm", 1),
        ("scm", 2),
    ]
    assert found.notes == ["cache.scm_preset is ignored for cache=dbcache, which has no such key"]


def test_free_dictionaries_are_paired_too() -> None:
    found = jobs("engine.options={a:1},{a:{b:2}},{}").jobs
    assert [job.config.engine.options for job in found] == [{"a": 1}, {"a": {"b": 2}}, {}]
