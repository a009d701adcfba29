"""A plan does not depend on the order in which lists were typed, and composes no more than it needs."""

from collections.abc import Callable

import pytest
from composing import jobs

from zbench.config import Config
from zbench.errors import ConfigError
from zbench.hardware.nvml import Device
from zbench.hydra_app import planned
from zbench.report.tables.plan import plan_rows
from zbench.sweeper.expectation import expected_sweep_s, turns_share
from zbench.sweeper.plan import Plan, make_plan

H100 = Device(0, "NVIDIA H100 80GB HBM3", "GPU-aaaa", 80 * 2**30, "580.95", 700.0)
TINY = ("pipeline=zimage_tiny", "workload=single")


def stand_in() -> Config:
    return jobs("hardware=cpu", "pipeline=zimage_tiny", grids=False).jobs[0].config


def plan(*overrides: str, devices: tuple[Device, ...] = (), tiny: Callable[[], Config] = stand_in) -> Plan:
    return make_plan(jobs(*overrides), tiny, devices, command="zbench sweep", prefix="sweep")


def test_a_random_search_takes_the_same_trials_in_whatever_order_lists_were_typed() -> None:
    search = ("search=random", "search.n_trials=3", "hardware=cpu", "pipeline=zimage_tiny", "cache=dbcache")
    first = plan(*search, "compute=eager,compiled", "cache.max_warmup_steps=2,4")
    for computes, steps in (("compiled,eager", "2,4"), ("eager,compiled", "4,2"), ("compiled,eager", "4,2")):
        other = plan(*search, f"compute={computes}", f"cache.max_warmup_steps={steps}")
        asked = {p.trial.trial_id for p in first.trials if p.trial.cache.method != "none"}
        assert {p.trial.trial_id for p in other.trials if p.trial.cache.method != "none"} == asked
        assert len(asked) == 3


def test_every_measured_trial_is_expected_by_its_own_hardware() -> None:
    both = [plan(*TINY, f"hardware={typed}", devices=(H100,)) for typed in ("h100,cpu", "cpu,h100")]
    expected = [{row.trial_id: row.expected_latency_s for row in plan_rows(made)} for made in both]
    assert expected[0] == expected[1] and len(set(expected[0].values())) == 2
    for typed in ("h100", "cpu"):
        (alone,) = plan_rows(plan(*TINY, f"hardware={typed}", devices=(H100,)))
        assert expected[0][alone.trial_id] == alone.expected_latency_s
    assert expected_sweep_s(both[0]) == pytest.approx(expected_sweep_s(both[1]))


@pytest.mark.parametrize(
    ("rounds", "made", "thresholds", "blocks"),
    [
        ("min_rounds=8", 8, "0.2", 0),
        ("min_rounds=1", 3, "0.2", 0),
        ("min_rounds=8", 8, "0.1,0.2,0.3,0.4,0.5", 0),
        ("min_rounds=8", 8, "range(0.1,0.7,0.1)", 1),
    ],
)
def test_turns_of_the_uncached_trial_are_part_of_what_a_sweep_takes(
    rounds: str, made: int, thresholds: str, blocks: int
) -> None:
    brief = (f"measure.{rounds}", "measure.max_rounds=8", "measure.budget_s=1e-9", "cache.max_warmup_steps=2")
    settings = (*TINY, "hardware=h100", "cache=none,dbcache", f"cache.residual_diff_threshold={thresholds}", *brief)
    paired, alone = (plan(*settings, f"measure.paired={each}", devices=(H100,)) for each in ("true", "false"))
    seconds = {row.label: row.expected_latency_s for row in plan_rows(paired)}
    more = made - int(rounds[-1])  # an image of a trial that takes turns is made three times
    further_s = expected_sweep_s(paired) - expected_sweep_s(alone)
    cached_s = sum(each_s for label, each_s in seconds.items() if label != "none")
    warm_ups = 2  # of the uncached trial, before each window that it is in
    more_of_baseline = made - max(int(rounds[-1]), 2) + blocks * (made + warm_ups)  # a reference is made twice anyway
    assert further_s == pytest.approx(more * cached_s + more_of_baseline * seconds["none"])


@pytest.mark.parametrize(
    ("thresholds", "search", "more"),
    [
        ("0.2", (), None),
        ("0.1,0.2,0.3,0.4,0.5", (), None),
        ("range(0.1,0.7,0.1)", (), 1 / 7),
        ("0.1,0.2,0.3", ("compute=eager,compiled",), None),
        ("range(0.1,0.7,0.1)", ("compute=eager,compiled",), 2 / 14),
        ("0.1,0.2,0.3", ("search=optuna", "search.n_trials=3"), 3 / 4),
        ("0.1,0.2,0.3", ("measure.paired=false",), None),
        ("0.1,0.2,0.3", ("measure.quality_only=true",), None),
    ],
)
def test_how_many_more_requests_turns_take(thresholds: str, search: tuple[str, ...], more: float | None) -> None:
    """Three or four settings share an uncached trial, which of the first of each process is the row itself, but for a
    reference that is no baseline; where each decides what is tried next it has one of its own."""
    cached = ("cache=none,dbcache", "cache.max_warmup_steps=2", f"cache.residual_diff_threshold={thresholds}")
    assert turns_share(plan(*TINY, "hardware=cpu", *cached, *search)) == (None if more is None else pytest.approx(more))


def test_a_baseline_that_was_not_asked_for_has_the_hardware_of_what_is_compared_with_it() -> None:
    made = plan(*TINY, "hardware=h100", "cache=dbcache_aggressive", devices=(H100,))
    assert {made.profiles[p.trial.trial_id].name for p in made.trials} == {"h100"}
    assert made.trials[0].is_baseline and made.trials[0].trial.cache.method == "none"


@pytest.mark.parametrize(
    ("hardware", "native", "other"),
    [
        (("hardware=cpu", "pipeline=zimage_tiny"), "float32", "bfloat16"),
        (("hardware=h100", "pipeline=zimage_tiny"), "bfloat16", "float32"),
        (("hardware=rtx4090", "pipeline=zimage_turbo"), "bfloat16", "float32"),  # projected
    ],
)
def test_the_native_dtype_is_auto_by_another_name(hardware: tuple[str, ...], native: str, other: str) -> None:
    made = plan(*hardware, "workload=single", f"compute.dtype={native},auto,{other}", devices=(H100,))
    assert [(p.trial.label, p.is_reference) for p in made.trials] == [("none", True), (f"none {other}", False)]
    assert [p.trial.compute.dtype for p in made.trials] == ["auto", other]
    alone = plan(*hardware, "workload=single", f"compute.dtype={native}", devices=(H100,))
    assert [p.trial.trial_id for p in alone.trials] == [made.trials[0].trial.trial_id]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (("search=random", "search.n_trials=null"), r"search\.n_trials=None: a random search needs"),
        (("search.n_trials=4",), r"search\.n_trials=4: a grid takes every point; use search=random"),
        (("search.seed=4",), r"search\.seed=4: a grid draws nothing; use search=random"),
        (("search.options.x=1",), r"search\.options=.*: search=grid takes none"),
    ],
)
def test_a_search_says_itself_how_many_trials_it_wants_to_be_told(typed: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan(*TINY, "hardware=cpu", "cache=dbcache", *typed)


def test_the_stand_in_is_composed_once_and_only_for_projections() -> None:
    asked: list[str] = []

    def counted() -> Config:
        asked.append("stand-in")
        return stand_in()

    assert plan(*TINY, "hardware=cpu", "cache=dbcache", tiny=counted).stand_in is None and asked == []
    projected = plan("workload=single", "hardware=b300", "cache=dbcache", tiny=counted)
    assert len(asked) == 1 and projected.stand_in is not None
    assert {projected.proxy_of(p.trial).pipeline.name for p in projected.trials} == {"zimage_tiny"}


def test_what_the_engine_cannot_run_is_pruned_and_the_engine_of_a_mere_plan_is_not_imported() -> None:
    overrides = ("hardware=cpu", "pipeline=zimage_tiny", "cache=none,dbcache", "offload=none,sequential")
    pruned = {(placed.trial.offload.mode, why[:23]) for placed, why in plan(*overrides).pruned}
    assert pruned == {("sequential", "offload.mode=sequential")}
    nowhere = "engine.target=no_such_module:Engine"
    with pytest.raises(ConfigError, match=nowhere):
        planned(["hardware=cpu", "cache=none", nowhere], "sweep", allow_code=True)
    made = planned(["hardware=cpu", "cache=none", nowhere], "plan", allow_code=True)
    assert made is not None and len(made.trials) == 1
