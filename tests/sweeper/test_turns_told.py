"""Which uncached trial takes turns with each, before anything has run, and what a plan says where it has no row."""

from dataclasses import replace

import pytest
from factories import TURBO, trial
from test_plan import H100, TINY, plan

from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, ParallelConfig
from zbench.engines import Descriptions
from zbench.space import Placed, arrange
from zbench.sweeper.beside import companions, turns_told, uncached_beside
from zbench.trial import Trial

GPU = ComputeConfig(device="cuda")
AUTO = replace(GPU, graphs="auto")
SMALL = replace(TURBO, height=512, width=512)
CACHED = DBCacheConfig(max_warmup_steps=2)


def beside(of: Trial) -> Trial | None:
    """What takes turns with it where the baseline is its reference."""
    return uncached_beside(Placed(of, of.reference.trial_id, of.reference.trial_id), of.reference, Descriptions())


@pytest.mark.parametrize(
    ("of", "captured", "sent"),
    [
        (trial(CACHED, pipeline=SMALL, compute=AUTO), "stages", "auto"),
        (trial(CACHED, pipeline=SMALL, compute=GPU, parallel=ParallelConfig(gather_size=2)), "none", "collectives"),
        (trial(CACHED, pipeline=SMALL, compute=AUTO, parallel=ParallelConfig(gather_size=2)), "stages", "collectives"),
    ],
    ids=["captured", "gathered", "both"],
)
def test_where_auto_is_more_without_a_cache_turns_are_taken_with_what_the_same_pipeline_serves(
    of: Trial, captured: str, sent: str
) -> None:
    """The uncached trial as it would be typed has another pipeline, on which nothing could take turns."""
    companion, typed = beside(of), replace(of, cache=CacheConfig())
    process = Descriptions().process
    assert companion is not None and process(companion) == process(of) != process(typed)
    assert (companion.compute.graphs, companion.parallel.gather_by) == (captured, sent)
    assert companion.cache == CacheConfig() and replace(of, cache=CacheConfig()).pipeline == companion.pipeline


def test_where_auto_is_the_same_with_and_without_a_cache_the_baseline_itself_takes_turns() -> None:
    on_cpu = trial(CACHED, compute=replace(AUTO, device="cpu"))
    assert beside(on_cpu) == on_cpu.reference, "nothing is captured on a CPU"
    large = trial(CACHED, pipeline=TURBO, compute=replace(GPU, graphs="stages"))
    companion = beside(large)
    assert companion is not None and companion == replace(large, cache=CacheConfig())


def test_a_setting_that_skips_nothing_takes_no_turns_with_its_equal() -> None:
    compiled = ComputeConfig(compile=True)
    idle = trial(replace(CACHED, max_warmup_steps=8), compute=compiled)
    assert beside(idle) is None and beside(replace(idle, cache=CACHED)) is not None


def test_a_plan_names_the_values_that_add_the_row_of_what_takes_turns() -> None:
    trials = [trial(replace(CACHED, max_warmup_steps=n), pipeline=SMALL, compute=AUTO) for n in (1, 2, 3, 4, 5)]
    engines = Descriptions()
    placed = arrange(trials).placed
    (said,) = turns_told(placed, companions(placed, engines), engines)
    assert said == (
        f"{', '.join(t.label for t in trials[:3])} and 2 more: turns are taken with none graphs:stages, which has no "
        "row of its own; add cache=none and compute.graphs=stages to the values asked for to give it a row, and one "
        "for each other combination"
    )
    with_row = arrange([*trials, trial(pipeline=SMALL, compute=replace(GPU, graphs="stages"))]).placed
    assert turns_told(with_row, companions(with_row, engines), engines) == []


def test_the_values_that_a_plan_names_do_add_the_row_and_what_else_they_combine_to() -> None:
    """`compute.graphs=stages` alone would change what was asked for instead."""
    small = ("hardware=h100", "workload=single", "pipeline.height=512", "pipeline.width=512")
    asked = (*small, "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.2")
    before = plan(*asked, "compute.graphs=auto", "cache=dbcache", devices=(H100,))
    assert any("add cache=none and compute.graphs=stages to the values" in note for note in before.notes)
    after = plan(*asked, "compute.graphs=auto,stages", "cache=none,dbcache", devices=(H100,))
    assert not any("no row of its own" in note for note in after.notes)
    assert {p.trial.trial_id for p in before.trials} < {p.trial.trial_id for p in after.trials}
    alone = plan(*asked, "compute.graphs=stages", "cache=none,dbcache", devices=(H100,))
    assert not {p.trial.trial_id for p in before.trials} <= {p.trial.trial_id for p in alone.trials}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("cache=none,dbcache",), []),
        (("cache=dbcache", "compute=eager"), []),
        (
            ("cache=dbcache", "compute=compiled", "cache.residual_diff_threshold=0.2"),
            ["none compiled, which has no row of its own; add cache=none to the values asked for to give it a row"],
        ),
        (("cache=dbcache", "compute=compiled", "measure.paired=false"), []),
        (("cache=none,dbcache", "compute=compiled"), []),
        (
            ("cache=dbcache", "compute=compiled", "cache.max_warmup_steps=8"),
            ["leaves none of 8 steps to be skipped, so that it is measured as an uncached trial"],
        ),
        (("cache=dbcache", "cache.max_warmup_steps=8"), []),
    ],
)
def test_what_a_plan_says_of_turns_and_of_settings_that_skip_nothing(
    overrides: tuple[str, ...], said: list[str]
) -> None:
    notes = plan(*TINY, "hardware=cpu", *overrides).notes
    assert len(notes) == len(said) and all(text in note for text, note in zip(said, notes, strict=True))


def test_a_plan_says_which_trials_no_uncached_trial_takes_turns_with() -> None:
    served = ("engine=sglang", "hardware=h100", "workload=single", "cache=none,dbcache", "cache.max_warmup_steps=2")
    notes = plan(*served, "engine.options.version=0.5.15.post1", devices=(H100,)).notes
    assert any("no uncached trial is of the same process (engine=sglang)" in note for note in notes)
