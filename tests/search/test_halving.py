"""Many settings on few samples, the better ones on more; the last rung is the workload as it was typed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import SYNTHETIC, zbench_here
from factories import SCENES, complete, failed, trial
from loads import under

from zbench.analysis.view import view_of
from zbench.analysis.work import work_key
from zbench.config import CacheConfig, DBCacheConfig, Prompt, SearchConfig, WorkloadConfig
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import Search, load_search, parts_of, preview
from zbench.search.halving import rungs
from zbench.search.references import WithReferences
from zbench.space import Space, arrange
from zbench.store import read_records
from zbench.trial import Trial

NINE = replace(SCENES, prompts=[Prompt(id=f"p{n}", text=f"prompt {n}") for n in range(9)])


def setting(n: int, workload: WorkloadConfig = NINE) -> Trial:
    return trial(DBCacheConfig(residual_diff_threshold=0.01 * (n + 1)), workload=workload)


def number(of: Trial) -> int:
    assert isinstance(of.cache, DBCacheConfig)
    return round(of.cache.residual_diff_threshold * 100) - 1


def grid(settings: int = 27, workload: WorkloadConfig = NINE) -> Space:
    return arrange([setting(n, workload) for n in range(settings)])


def config(n_trials: int | None = None, seed: int = 0, **options: Any) -> SearchConfig:
    target = "zbench.search.halving:HalvingSearch"
    return SearchConfig(name="halving", target=target, n_trials=n_trials, seed=seed, options=options)


def ran(of: Trial) -> Record:
    """The higher the number, the slower and the more alike."""
    return complete(of, latency_s=1 + 0.01 * number(of), spread=0.0, n_rounds=2, ssim=0.8 + 0.005 * number(of))


def tell(search: Search, record: Record) -> None:
    search.tell(record, view_of([record]).trials[0])


def climbed(search: Search, run: Callable[[Trial], Record] = ran) -> list[tuple[int, list[int]]]:
    """Each rung: its samples, and which settings."""
    found: dict[int, list[int]] = {}
    while (wanted := search.ask()) is not None:
        found.setdefault(len(wanted.workload.prompts), []).append(number(wanted))
        tell(search, run(wanted))
    return list(found.items())


def test_a_third_of_the_settings_goes_on_with_three_times_the_samples() -> None:
    """27 settings on one prompt, 9 on three, 3 on all nine: 81 requests and not 243."""
    assert climbed(load_search(config(), grid())) == [(1, list(range(27))), (3, list(range(9))), (9, [0, 1, 2])]


def test_the_last_rung_is_the_workload_as_it_was_typed() -> None:
    search = load_search(config(), grid())
    asked = []
    while (wanted := search.ask()) is not None:
        asked.append(wanted)
        tell(search, ran(wanted))
    assert {each.trial_id for each in asked[-3:]} == {setting(n).trial_id for n in range(3)}
    assert [p.id for p in asked[27].workload.prompts] == ["p0", "p1", "p2"], "a rung begins as the workload does"


def test_each_rung_is_held_to_references_on_the_same_samples() -> None:
    search = WithReferences(load_search(config(), grid()), "t")
    held: dict[str, int] = {}
    while (placed := search.next_placed()) is not None:
        held[placed.reference_id] = held.get(placed.reference_id, 0) + 1
        of = placed.trial
        record = complete(of, latency_s=2.0) if of.cache.method == "none" else ran(of)
        search.tell(record, view_of([record]).trials[0])
        assert placed.reference_id == of.reference.trial_id
    assert sorted(held.values()) == [3 + 1, 9 + 1, 27 + 1]


def test_what_spoils_an_image_of_few_goes_no_further_while_another_is_feasible() -> None:
    """SSIM of at least 0.9 leaves the numbers from 20 on: the slow end."""
    rounds = climbed(load_search(config(min_ssim=0.9), grid()))
    assert rounds[1:] == [(3, list(range(20, 27))), (9, [20, 21, 22])]


def test_where_nothing_is_feasible_the_nearest_go_on() -> None:
    assert climbed(load_search(config(min_ssim=0.99), grid()))[-1] == (9, [24, 25, 26])


def test_what_failed_goes_no_further() -> None:
    def run(of: Trial) -> Record:
        return failed(of) if number(of) < 5 else ran(of)

    assert climbed(load_search(config(), grid()), run)[1] == (3, list(range(5, 14)))
    assert climbed(load_search(config(), grid()), failed) == [(1, list(range(27)))], "nothing is left"


def test_one_that_is_left_goes_to_all_samples_at_once() -> None:
    assert climbed(load_search(config(), grid(3))) == [(1, [0, 1, 2]), (9, [0])]


def test_more_is_better_of_throughput() -> None:
    """Images a second fall as seconds rise."""
    assert climbed(load_search(config(objective="throughput"), grid()))[-1] == (9, [0, 1, 2])
    assert climbed(load_search(config(objective="quality"), grid()))[-1] == (9, [24, 25, 26])


def test_a_number_of_trials_is_how_many_settings_begin_and_they_are_those_of_random() -> None:
    random = SearchConfig(name="random", target="zbench.search.random_choice:RandomSearch", n_trials=9, seed=4)
    drawn = {number(p.trial) for p in preview(random, grid())[0].placed if not p.is_reference}
    first = climbed(load_search(config(9, seed=4), grid()))[0]
    assert set(first[1]) == drawn and len(drawn) == 9


def test_it_waits_for_a_whole_rung() -> None:
    search = load_search(config(), grid())
    asked = []
    while (wanted := search.ask()) is not None:
        asked.append(wanted)
    assert len(asked) == 27
    for each in asked[:-1]:
        tell(search, ran(each))
    assert search.ask() is None
    tell(search, ran(asked[-1]))
    following = search.ask()
    assert following is not None and len(following.workload.prompts) == 3


def test_the_order_in_which_trials_end_changes_nothing() -> None:
    def batches(reverse: bool) -> list[list[int]]:
        search, found = load_search(config(), grid()), []
        while True:
            batch = []
            while (wanted := search.ask()) is not None:
                batch.append(wanted)
            if not batch:
                return found
            found.append([number(each) for each in batch])
            for each in batch[::-1] if reverse else batch:
                tell(search, ran(each))

    assert batches(False) == batches(True)


def test_a_plan_shows_the_first_rung_and_its_reference() -> None:
    shown = preview(config(), grid()).space
    assert len(shown.placed) == 28 and {len(p.trial.workload.prompts) for p in shown.placed} == {1}
    assert shown.placed[0].is_reference


def test_rungs_are_part_of_the_work_that_was_typed() -> None:
    search = load_search(config(), grid())
    first, second = (work_key(setting(0, replace(NINE, prompts=NINE.prompts[:n]))) for n in (1, 3))
    assert parts_of(search) == dict.fromkeys((first, second), work_key(setting(0)))


@pytest.mark.parametrize(
    ("prompts", "seeds", "least", "sizes"),
    [
        (9, 1, 1, [(1, 1), (3, 1), (9, 1)]),
        (4, 1, 1, [(1, 1), (3, 1), (4, 1)]),
        (4, 3, 2, [(2, 1), (4, 1), (4, 3)]),
        (1, 10, 1, [(1, 1), (1, 3), (1, 9), (1, 10)]),
        (3, 3, 9, [(3, 3)]),
        (3, 3, 50, [(3, 3)]),
    ],
)
def test_rungs_are_prompts_before_seeds(prompts: int, seeds: int, least: int, sizes: list[tuple[int, int]]) -> None:
    workload = replace(NINE, prompts=NINE.prompts[:prompts], seeds=list(range(seeds)))
    assert [(len(each.prompts), len(each.seeds)) for each in rungs(workload, 3, least)] == sizes
    assert rungs(workload, 3, least)[-1] == workload


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"factor": 1}, "factor=1"),
        ({"least_samples": 0}, "least_samples=0"),
        ({"objective": ["latency", "quality"]}, "halving is after one"),
        ({"objective": "speed"}, "must be one of"),
    ],
)
def test_options_that_cannot_be_meant_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_search(config(**options), grid())


def test_loads_and_storages_are_for_others() -> None:
    with pytest.raises(ConfigError, match="a load has none"):
        load_search(config(), arrange([under(arrivals="concurrent", concurrency=4)]))
    with pytest.raises(ConfigError, match=r"search\.storage"):
        load_search(replace(config(), storage="sqlite:///x.db"), grid())


def test_an_uncached_trial_of_the_grid_is_measured_once_a_rung() -> None:
    """It is the rung's reference, which comes first."""
    space = arrange([trial(CacheConfig(), workload=NINE), *(setting(n) for n in range(8))])
    search = WithReferences(load_search(config(), space), "t")
    seen = []
    while (placed := search.next_placed()) is not None:
        seen.append(placed.trial.trial_id)
        of = placed.trial
        record = complete(of, latency_s=2.0) if of.cache.method == "none" else ran(of)
        search.tell(record, view_of([record]).trials[0])
    assert len(seen) == len(set(seen))


def test_a_sweep_climbs_to_the_workload_and_the_same_command_measures_nothing(tmp_path: Path) -> None:
    """Four scenes, 9 settings: nine on one, three on three, one on all; each rung with its reference."""
    args = ["sweep", *SYNTHETIC, "measure.min_rounds=1", "measure.max_rounds=4", "measure.max_warmup_rounds=0"]
    args += ["search=halving", "sweep.name=s", "cache=dbcache", "cache.max_warmup_steps=1,2,3"]
    done = zbench_here(tmp_path, *args)
    assert done.returncode == 0, done.stderr
    found = read_records(tmp_path / "runs" / "s" / "records.jsonl")
    sizes = Counter(len(record.trial.workload.prompts) for record in found)
    assert sizes == {1: 9 + 1, 3: 3 + 1, 4: 1 + 1}
    again = zbench_here(tmp_path, *args)
    assert again.stderr.count("from the journal") == len(found)
