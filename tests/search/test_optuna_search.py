"""Optuna suggests trials of the space alone, learns from what is told, and goes on from the journal where it was."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from commands import SYNTHETIC, start, wait_for, zbench_here
from factories import complete, failed, trial

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig, OffloadConfig, SearchConfig
from zbench.engines import Descriptions
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import Search, load_search
from zbench.search.references import WithReferences
from zbench.space import Space, arrange
from zbench.store import read_records
from zbench.trial import Trial

WARMUPS, LIMITS = range(8), [round(0.02 * n, 2) for n in range(1, 13)]
MEASURE = ("measure.min_rounds=2", "measure.max_rounds=2", "measure.max_warmup_rounds=0")


def cached(warmup: int, limit: float, **more: Any) -> Trial:
    return trial(DBCacheConfig(max_warmup_steps=warmup, residual_diff_threshold=limit, **more))


def grid(warmups: Sequence[int] = WARMUPS) -> Space:
    """No cache, and 96 settings of DBCache, or 12 for each warm-up."""
    return arrange([trial(), *(cached(warmup, limit) for warmup, limit in product(warmups, LIMITS))])


def latency_s(of: Trial) -> float:
    """A bowl whose floor is at a warm-up of 5 and a threshold of 0.16."""
    if not isinstance(of.cache, DBCacheConfig):
        return 1.0
    return 0.4 + 0.05 * abs(of.cache.max_warmup_steps - 5) + 2 * abs(of.cache.residual_diff_threshold - 0.16)


def ssim(of: Trial) -> float | None:
    """The more is skipped, the less it is alike."""
    return 0.99 - of.cache.residual_diff_threshold / 2 if isinstance(of.cache, DBCacheConfig) else None


def ran(of: Trial) -> Record:
    return complete(of, latency_s=latency_s(of), spread=0.0, n_rounds=2, ssim=ssim(of))


def config(n_trials: int | None = 40, seed: int = 0, storage: str | None = None, **options: Any) -> SearchConfig:
    target = "zbench.search.optuna.search:OptunaSearch"
    return SearchConfig(name="optuna", target=target, n_trials=n_trials, seed=seed, storage=storage, options=options)


def tell(search: Search, record: Record) -> None:
    search.tell(record, view_of([record]).trials[0])


def searched(search: Search, run: Callable[[Trial], Record] = ran, most: int = 1000) -> list[Trial]:
    asked: list[Trial] = []
    while len(asked) < most and (wanted := search.ask()) is not None:
        asked.append(wanted)
        tell(search, run(wanted))
    return asked


def ids(trials: list[Trial]) -> list[str]:
    return [each.trial_id for each in trials]


def stored(url: str) -> list[optuna.trial.FrozenTrial]:
    (summary,) = optuna.get_all_study_summaries(url)
    return optuna.load_study(study_name=summary.study_name, storage=url).get_trials()


@pytest.mark.parametrize("seed", range(5))
def test_tpe_finds_the_floor_of_a_bowl_in_a_third_of_the_grid(seed: int) -> None:
    asked = searched(load_search(config(32, seed), grid()))
    assert min(map(latency_s, asked)) <= 0.4 + 0.05 and len(asked) == 32


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_every_suggestion_is_a_trial_of_the_space_and_none_comes_twice(sampler: str) -> None:
    space = grid((2, 4))
    asked = ids(searched(load_search(config(100, sampler=sampler), space)))
    assert len(asked) == len(set(asked)) and set(asked) == space.asked, "all 25 points, each once"


def test_a_trial_that_was_not_asked_for_stands_for_one_that_was(tmp_path: Path) -> None:
    """A threshold of 0 skips nothing: that is the reference, which comes by itself."""
    space = arrange([cached(2, limit) for limit in (0.0, 0.1, 0.2)], plainest=Descriptions(outside=False).plainest)
    url = f"sqlite:///{tmp_path}/study.db"
    asked = searched(load_search(config(10, storage=url), space))
    assert sorted(each.params["cache.residual_diff_threshold"] for each in stored(url)) == [0.0, 0.1, 0.2]
    assert {each.label for each in asked} == {"none", "F1B0_W2_MC3_R0.1", "F1B0_W2_MC3_R0.2"} and len(asked) == 3


def test_a_search_told_the_same_again_asks_the_same_again() -> None:
    whole = ids(searched(load_search(config(), grid())))
    assert whole == ids(searched(load_search(config(), grid())))
    assert whole[:20] == ids(searched(load_search(config(20), grid()))), "a smaller number is the beginning of it"
    assert whole != ids(searched(load_search(config(seed=1), grid())))


def test_an_infeasible_trial_never_wins() -> None:
    """The floor of the bowl has an SSIM of 0.91; with 0.95 asked for the best is at a threshold of 0.08."""
    asked = searched(load_search(config(40, min_ssim=0.95), grid()))
    feasible = [each for each in asked if (ssim(each) or 1.0) >= 0.95]
    assert min(map(latency_s, feasible)) <= 0.56 + 0.05
    of_random, of_tpe = asked[:10], asked[20:]
    assert sum(each in feasible for each in of_tpe) / 20 > sum(each in feasible for each in of_random) / 10


def test_the_stored_best_is_feasible_and_constraints_are_optunas(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    searched(load_search(config(16, storage=url, min_ssim=0.95), grid()))
    (summary,) = optuna.get_all_study_summaries(url)
    study = optuna.load_study(study_name=summary.study_name, storage=url)
    assert max(study.best_trial.constraints.values()) <= 0.0
    missed = [each for each in study.trials if max(each.constraints.values()) > 0]
    assert missed and set(missed[0].constraints) == {"search.options.min_ssim"}


def test_a_failed_trial_is_a_failure_and_never_a_value(tmp_path: Path) -> None:
    """Those that fail would be the fastest."""
    url = f"sqlite:///{tmp_path}/study.db"

    def run(of: Trial) -> Record:
        return failed(of) if 0.1 < getattr(of.cache, "residual_diff_threshold", 0) < 0.2 else ran(of)

    asked = searched(load_search(config(30, storage=url), grid()), run)
    assert len(ids(asked)) == len(set(ids(asked))) == 30
    states = {each.state: each for each in stored(url)}
    fail = states[optuna.trial.TrialState.FAIL]
    assert fail.values is None and fail.user_attrs["reason"] == "the worker was killed by the kernel"


def test_nsga2_spreads_over_the_front_of_speed_and_likeness(tmp_path: Path) -> None:
    """Its default: latency and likeness. Both ends of the front are known before, and what lies between is wanted."""
    url = f"sqlite:///{tmp_path}/study.db"
    searched(load_search(config(60, sampler="nsga2", storage=url), grid()))
    (summary,) = optuna.get_all_study_summaries(url)
    study = optuna.load_study(study_name=summary.study_name, storage=url)
    assert study.metric_names == ["latency", "quality"]
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert len(study.best_trials) >= 4


def test_points_that_cannot_work_are_never_run() -> None:
    bad = [trial(DBCacheConfig(Fn_compute_blocks=n + 20, max_warmup_steps=4)) for n in range(10)]
    space = arrange([*bad, *(cached(warmup, 0.1) for warmup in WARMUPS)])
    asked = searched(load_search(config(100), space))
    assert set(ids(asked)) == {p.trial.trial_id for p in space.placed} & space.asked and len(asked) == 8


def test_a_reference_that_was_measured_before_is_not_waited_for() -> None:
    """It is a point of the grid too; its record is told once, before the search comes to it."""
    search = WithReferences(load_search(config(100), grid((2, 4))), "t")
    seen: list[str] = []
    while (placed := search.next_placed()) is not None:
        seen.append(placed.trial.trial_id)
        record = ran(placed.trial)
        search.tell(record, view_of([record]).trials[0])
    assert len(seen) == len(set(seen)) == 25


def test_a_union_of_grids_has_a_choice_of_its_own_for_each_grid(tmp_path: Path) -> None:
    """Without a cache there is no threshold; with another offload there are other thresholds."""
    url = f"sqlite:///{tmp_path}/study.db"
    waiting = [replace(cached(4, limit), offload=OffloadConfig(mode="vae")) for limit in (0.3, 0.4, 0.5)]
    space = arrange([trial(), *(cached(w, limit) for w in (2, 4) for limit in (0.1, 0.2)), *waiting])
    asked = searched(load_search(config(8, storage=url), space))
    assert set(ids(asked)) == space.asked
    of = {each.user_attrs["label"]: each.params for each in stored(url)}
    threshold = "cache.residual_diff_threshold"
    assert of["none"] == {"offload.mode": "none", "cache.method": "none"}
    assert of["F1B0_W2_MC3_R0.1"] == {
        "offload.mode": "none",
        "cache.method": "dbcache",
        "cache.max_warmup_steps": 2,
        f"{threshold} of 0.1, 0.2": 0.1,
    }
    assert {
        params[f"{threshold} of 0.3, 0.4, 0.5"]
        for params in of.values()
        if len(params) == 2 and "cache.method" not in params
    } == {0.3, 0.4, 0.5}


def test_with_several_at_a_time_it_waits_for_the_oldest_and_the_order_of_ends_changes_nothing() -> None:
    """So what a stopped sweep asks for again is what it asked for, whichever GPU was quicker."""

    def by_fours(reverse: bool) -> list[str]:
        search = load_search(config(at_once=4), grid())
        asked: list[str] = []
        while True:
            batch = []
            while (wanted := search.ask()) is not None:
                batch.append(wanted)
            if not batch:
                return asked
            assert len(batch) <= 4
            asked += ids(batch)
            for each in batch[::-1] if reverse else batch:
                tell(search, ran(each))

    assert by_fours(False) == by_fours(True) and len(by_fours(False)) == 40


def test_the_study_in_a_storage_is_what_was_told_each_trial_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    first = searched(load_search(config(storage=url), grid()), most=15)
    assert [each.user_attrs["trial_id"] for each in stored(url)] == ids(first)
    whole = searched(load_search(config(storage=url), grid()))
    found = stored(url)
    assert [each.user_attrs["trial_id"] for each in found] == ids(whole) and len(found) == 40
    assert [each.value for each in found] == pytest.approx([latency_s(each) for each in whole])


def test_what_was_measured_again_takes_the_place_of_what_was(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    before = searched(load_search(config(12, storage=url), grid()))

    def slower(of: Trial) -> Record:
        return complete(of, latency_s=2 * latency_s(of), spread=0.0, n_rounds=2, ssim=ssim(of))

    again = searched(load_search(config(12, storage=url), grid()), slower)
    assert ids(again) == ids(before), "twice as slow is the same order"
    assert [each.value for each in stored(url)] == pytest.approx([2 * latency_s(each) for each in again])


def test_planning_opens_no_storage(tmp_path: Path) -> None:
    load_search(config(storage=f"sqlite:///{tmp_path}/study.db"), grid())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_trials": None}, "search.n_trials=None: how many trials it takes"),
        ({"sampler": "annealing"}, "sampler='annealing'"),
        ({"objective": "speed"}, "search.options.objective=speed: must be one of latency, throughput, energy, quality"),
        ({"objective": ["latency", "latency"]}, "names one twice"),
        ({"min_ssim": 2}, "search.options.min_ssim=2.0: must be within -1 and 1"),
        ({"population": 1}, "search.options.population=1: must be at least 2"),
        ({"samplr": "tpe"}, "samplr: no such field"),
    ],
)
def test_what_cannot_be_meant_is_one_error_that_names_the_option(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
        load_search(config(**changes), grid())


def test_an_objective_that_nothing_has_a_figure_for_stops_the_search() -> None:
    with pytest.raises(ConfigError, match=r"search\.options\.objective=energy: no trial here .*no_gpu"):
        searched(load_search(config(objective="energy"), grid()))


def test_a_limit_that_nothing_can_be_judged_by_stops_the_search() -> None:
    with pytest.raises(ConfigError, match=r"search\.options\.max_vram_gib=4\.0: .*no_gpu"):
        searched(load_search(config(max_vram_gib=4), grid()))


def test_two_pieces_of_work_are_never_compared() -> None:
    small = trial()
    other = replace(small, pipeline=replace(small.pipeline, steps=4))
    with pytest.raises(ConfigError, match="compares trials of one piece of work, and these are 2"):
        load_search(config(), arrange([small, other]))


def test_a_storage_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path) -> None:
    search = load_search(config(storage="postgresql://ann:secret@nowhere/db"), grid())
    with pytest.raises(ConfigError, match=r"search\.storage=postgresql://ann:\*\*\*@nowhere/db") as caught:
        search.ask()
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"search\.storage=sqlite:///.*cannot be used: .*unable to open"):
        load_search(config(storage=f"sqlite:///{tmp_path}/no/study.db"), grid()).ask()


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"search=optuna: needs the package optuna: pip install 'zbench\[optuna\]'"):
        load_search(config(), grid())


def test_the_parent_imports_no_torch_for_it() -> None:
    code = (
        "import sys; from zbench.cli import main; code = main(sys.argv[1:]); assert code == 0, code;"
        "assert 'optuna' in sys.modules and 'torch' not in sys.modules"
    )
    argv = ["plan", "search=optuna", "cache=dbcache", "hardware=cpu", "pipeline=zimage_tiny"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_killed_sweep_goes_on_and_neither_journal_nor_study_has_a_trial_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    args = ["sweep", *SYNTHETIC, *MEASURE, "search=optuna", "search.n_trials=10", "search.options.startup=3"]
    args += [f"search.storage={url}", "sweep.name=s", "engine.options.round_s=0.05", "cache=none,dbcache"]
    args += ["cache.max_warmup_steps=1,2,3,4,5", "cache.residual_diff_threshold=0.1,0.2,0.3"]
    journal = tmp_path / "runs" / "s" / "records.jsonl"

    def finished() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    process = start(tmp_path, *args)
    wait_for(lambda: finished() >= 5 or process.poll() is not None)
    time.sleep(0.07)  # into the next trial, whose time is 0.1 s and more
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = zbench_here(tmp_path, *args)
    assert done.returncode == 0, done.stderr
    found = Counter(record.trial_id for record in read_records(journal))
    assert set(found.values()) == {1} and 10 <= len(found) <= 11, "ten, and the reference where it is none of them"
    of_study = Counter(each.user_attrs["trial_id"] for each in stored(url))
    assert of_study == found
    again = zbench_here(tmp_path, *args)
    assert again.stderr.count("from the journal") == len(found), "the same command measures nothing more"
