"""A plan can be read however many trials are pruned."""

import json
import re
from dataclasses import replace

import pytest
from factories import trial

from zbench.analysis.labels import told_apart
from zbench.composition import expand
from zbench.config import DBCacheConfig, ServedEngineConfig
from zbench.hydra_app import planned
from zbench.report.tables.plan import plan_rows, render_plan
from zbench.search import UNFORESEEN
from zbench.space import Placed, Space
from zbench.sweeper.plan import Plan, make_plan

REASON = "parallel.ulysses_size=4: 30 heads are not divisible by 4"


def plan(*overrides: str, pruned: int = 0) -> Plan:
    """One trial that runs, and as many pruned ones as asked for."""
    jobs = expand(["hardware=cpu", "pipeline=zimage_tiny", *overrides], lambda group, _: "cpu", grids=False)
    made = make_plan(jobs, lambda: jobs.jobs[0].config, [], command="zbench sweep", prefix="sweep")
    left_out = [Placed(trial(DBCacheConfig(max_warmup_steps=n)), "reference", "base") for n in range(pruned)]
    preview = replace(made.preview, pruned=tuple((placed, REASON) for placed in left_out))
    return replace(made, preview=preview)


def test_reasons_stand_below_the_table_once_each() -> None:
    made = plan(pruned=36)
    pruned = (*made.pruned[:-1], (made.pruned[-1][0], "another reason"))
    made = replace(made, preview=replace(made.preview, pruned=pruned))
    text = render_plan(made, "table")
    assert text.count(REASON) == 1
    assert f"[1] 35 trials pruned: {REASON}" in text.splitlines()
    assert "[2] 1 trial pruned: another reason" in text.splitlines()
    rows = [line for line in text.splitlines() if "pruned [1]" in line]
    assert len(rows) == 35 and max(map(len, rows)) < 100


def test_the_role_column_names_both_roles() -> None:
    made = plan()
    (only,) = made.trials
    placed = [
        only,
        replace(only, baseline_id="b"),
        replace(only, reference_id="r"),
        replace(only, reference_id="r", baseline_id="b"),
    ]
    rows = plan_rows(replace(made, preview=Space(tuple(placed), ())))
    assert [row.role for row in rows] == ["reference, baseline", "reference", "baseline", "measured"]


def test_one_trial_is_no_plural() -> None:
    text = render_plan(plan(), "table")
    assert ": 1 trial, 0 pruned;" in text and "[1]" not in text


def test_trials_of_one_label_are_told_apart() -> None:
    made = plan()
    (only,) = made.trials
    longer = replace(only, trial=replace(only.trial, pipeline=replace(only.trial.pipeline, max_sequence_length=64)))
    first, second = plan_rows(replace(made, preview=Space((only,), ((longer, REASON),))))
    assert first.label == f"{only.trial.label} pipeline.max_sequence_length=128"
    assert second.label == f"{only.trial.label} pipeline.max_sequence_length=64"


def test_servers_of_one_label_are_told_apart_by_the_flags_that_they_have() -> None:
    server = ServedEngineConfig(name="sglang", target="zbench.engines.sglang:SGLangEngine", options={"flags": {}})
    options = [{"flags": {}}, {"flags": {"attention-backend": "torch_sdpa"}}, {"flags": {}, "environment": {"A": "1"}}]
    labels = told_apart(
        ["none"] * 3, lambda i: trial(engine=replace(server, options=options[i])), lambda i: f"number {i}"
    )
    assert labels == [
        "none",
        "none engine.options.flags.attention-backend=torch_sdpa",
        "none engine.options.environment.A=1",
    ]


def test_what_a_lora_beside_the_layers_costs_is_said_to_be_unknown() -> None:
    styled = "pipeline.lora=/style.safetensors"
    fused, beside = plan(styled), plan(styled, "pipeline.lora_fused=false")
    assert "what a LoRA that is not fused costs is not in it" in render_plan(beside, "table")
    assert "LoRA" not in render_plan(fused, "table")


@pytest.mark.parametrize(
    ("search", "says", "most"),
    [
        (["search=grid"], r": 10 trials, 0 pruned; expected time about \d", 10),
        (
            ["search=optuna", "search.n_trials=3"],
            r": 4 of these 10 trials, 0 pruned; expected time at most about \d",
            4,
        ),
        (["search=halving"], r": 10 trials, and up to \d+ others, as the results decide, .* at least about \d", None),
        (["search=masks"], r": \d+ trials, and up to \d+ others, as the results decide, .* at least about \d", None),
        (["search=thresholds"], r": \d+ trials, and others, as the results decide, .* time at least about \d", None),
    ],
)
def test_a_plan_of_a_search_that_decides_on_the_way_says_a_bound(
    search: list[str], says: str, most: int | None
) -> None:
    cache = [] if search == ["search=masks"] else ["cache=dbcache", "cache.max_warmup_steps=2,4,6"]
    thresholds = [] if search == ["search=masks"] else ["cache.residual_diff_threshold=0.1,0.2,0.3"]
    made = planned(["hardware=cpu", "pipeline=zimage_tiny", *cache, *thresholds, *search], "plan")
    assert made is not None and re.search(says, render_plan(made, "table"))
    data = json.loads(render_plan(made, "json"))
    assert (data["expected_sweep_s"] is None) == (search != ["search=grid"])
    assert most in (None, data["most_trials"])


def test_of_a_search_from_outside_a_plan_knows_neither_how_many_nor_how_long() -> None:
    """It is not asked: it may try fewer than are listed, and others."""
    text = render_plan(replace(plan(), foresight=UNFORESEEN), "table")
    assert re.search(r": \d+ trials? to choose from, as the search decides, .* expected time unknown; ", text)
