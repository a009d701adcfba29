"""The order in which anything is typed changes no name, no reference, no baseline and nothing that is reused."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import SYNTHETIC, zbench_here

from zbench.hydra_app import planned
from zbench.sweeper.plan import Plan

Typed = Sequence[tuple[str, Sequence[str]]]
"""A command line: keys, and the values of each."""

ONE = "{id: a, text: a red circle}"
OTHER = "{id: b, text: '一个蓝色的正方形', language: zh}"
PIPELINE = [("hardware", ["cpu"]), ("pipeline", ["zimage_tiny"])]

COMMANDS: dict[str, Typed] = {
    "groups": [*PIPELINE, ("compute", ["eager", "compiled"]), ("cache", ["none", "forced"])],
    "axes": [*PIPELINE, ("compute.dtype", ["bfloat16", "float32"]), ("pipeline.steps", ["8", "4"])],
    "work": [*PIPELINE, ("workload", ["single", "scenes"]), ("pipeline.height", ["256", "64"])],
    "experiment": [("experiment", ["demo"]), ("cache", ["scm", "forced"]), ("compute.compile", ["true", "false"])],
    "pruned": [*PIPELINE, ("cache", ["dbcache"]), ("cache.Fn_compute_blocks", ["99", "1"])],
    "projected": [
        ("hardware", ["rtx4090"]),
        ("pipeline", ["zimage_turbo"]),
        ("parallel", ["tp", "single"]),
        ("parallel.tp_size", ["2", "4", "3"]),
        ("offload", ["group", "none"]),
    ],
    "named": [*PIPELINE, ("compute", ["eager", "compiled"]), ("sweep.baseline", ["compute=compiled cache=dbcache"])],
}


def shuffled(typed: Typed, chance: random.Random) -> list[str]:
    """The same command line with its words, and each word's values, in another order."""
    words = [f"{key}={','.join(chance.sample(values, len(values)))}" for key, values in typed]
    return chance.sample(words, len(words))


def plan(args: Sequence[str]) -> Plan:
    made = planned(list(args), "sweep")
    assert made is not None
    return made


def said(made: Plan) -> tuple[str, dict[str, tuple[str, str]], set[str]]:
    """What must not change: the name, what every trial is held to, and which trials run."""
    every = [*made.trials, *(placed for placed, _ in made.pruned)]
    held_to = {p.trial.trial_id: (p.reference_id, p.baseline_id) for p in every}
    return made.name, held_to, {p.trial.trial_id for p in made.trials}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_shuffled_command_line_is_the_same_sweep(name: str) -> None:
    chance = random.Random(name)
    wanted = said(plan([f"{key}={','.join(values)}" for key, values in COMMANDS[name]]))
    for _ in range(2):
        args = shuffled(COMMANDS[name], chance)
        assert said(plan(args)) == wanted, args


def test_seeds_and_prompts_may_stand_in_any_order() -> None:
    lists = [
        (f"workload.seeds={seeds}", f"workload.prompts={prompts}")
        for seeds in ("[0,1]", "[1,0]")
        for prompts in (f"[{ONE},{OTHER}]", f"[{OTHER},{ONE}]")
    ]
    plans = [plan(["hardware=cpu", "pipeline=zimage_tiny", "cache=scm", *typed]) for typed in lists]
    assert all(said(made) == said(plans[0]) for made in plans)
    assert [p.trial.workload.seeds for p in plans[-1].trials] == [[1, 0]] * len(plans[-1].trials)


def test_experiments_whose_grids_stand_in_another_order_are_the_same_sweep(tmp_path: Path) -> None:
    made = []
    for order, (caches, dtypes) in {
        "one": ("scm,forced", "auto,bfloat16"),
        "other": ("forced,scm", "bfloat16,auto"),
    }.items():
        params = [f"      cache: {caches}", f"      compute.dtype: {dtypes}"]
        folder = tmp_path / order / "experiment"
        folder.mkdir(parents=True)
        lines = [
            "# @package _global_",
            "hydra:",
            "  sweeper:",
            "    params:",
            *(params if order == "one" else params[::-1]),
        ]
        (folder / "mine.yaml").write_text("\n".join(lines) + "\n")
        made.append(plan(["--config-dir", str(tmp_path / order), "hardware=cpu", "experiment=mine"]))
    assert said(made[0]) == said(made[1]) and made[0].name.startswith("mine-")


def test_a_sweep_whose_words_are_permuted_measures_nothing(tmp_path: Path) -> None:
    typed: Typed = [
        ("cache", ["none", "forced", "scm"]),
        ("cache.scm_preset", ["medium", "fast"]),
        ("compute.dtype", ["float32", "bfloat16"]),
        ("workload", ["scenes"]),
        ("measure.min_rounds", ["2"]),
        ("measure.max_rounds", ["2"]),
        ("measure.max_warmup_rounds", ["0"]),
    ]
    chance = random.Random(3)
    first = zbench_here(tmp_path, "sweep", *SYNTHETIC, *shuffled(typed, chance), "workload.seeds=[0,1]")
    assert first.returncode == 0, first.stderr
    (journal,) = tmp_path.glob("runs/*/records.jsonl")
    before = journal.read_bytes()
    trials = before.count(b"\n")
    for _ in range(2):
        again = zbench_here(tmp_path, "sweep", *SYNTHETIC, *shuffled(typed, chance), "workload.seeds=[1,0]")
        assert again.returncode == 0, again.stderr
        assert again.stderr.count("from the journal") == trials
        assert journal.read_bytes() == before and len(list(tmp_path.glob("runs/*/records.jsonl"))) == 1
