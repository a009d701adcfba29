"""On known surfaces each pattern of skipped steps is tried once; with a limit the best is found in eight trials."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import zbench_here
from factories import SCENES, complete, failed, trial
from surfaced import searched, true_ssim
from surfaces import SURFACES, Surface, surface

from zbench.analysis.view import view_of
from zbench.config import ComputeConfig, DBCacheConfig, SearchConfig
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import load_search
from zbench.search.references import WithReferences
from zbench.search.thresholds.search import ThresholdSearch
from zbench.space import Space, arrange
from zbench.store import read_records
from zbench.trial import Trial

FOUR = replace(SCENES, seeds=[0, 1])
TYPED = (0.12, 0.24, 0.4)
STEADY = sorted(SURFACES.keys() - {"wobbling"})
HERE = ("--config-dir", str(Path(__file__).parents[1] / "conf"), "engine=surface", "hardware=cpu")

Pattern = tuple[tuple[int, ...], ...]


def config(**options: Any) -> SearchConfig:
    return SearchConfig(name="thresholds", target="zbench.search.thresholds.search:ThresholdSearch", options=options)


def at(threshold: float, compute: ComputeConfig | None = None, **of: Any) -> Trial:
    cache = DBCacheConfig(residual_diff_threshold=threshold, **of)
    return trial(cache, workload=FOUR, compute=compute or ComputeConfig())


def space(typed: Sequence[float] = TYPED, **of: Any) -> Space:
    return arrange([at(value, **of) for value in typed])


def pattern(known: Surface, of: Trial) -> Pattern:
    samples = [(p.text, seed) for p in of.workload.prompts for seed in of.workload.seeds]
    return tuple(tuple(known.skipping(of, sample)[0]) for sample in samples)


@cache
def brute_force(known: Surface, points: int = 4000, **of: Any) -> list[tuple[Pattern, Trial]]:
    """Every pattern of a fine grid, by rising threshold."""
    found = {pattern(known, each): each for each in (at(n / points, **of) for n in range(points, 0, -1))}
    return list(found.items())[::-1]


def tried(search: ThresholdSearch, known: Surface) -> list[Trial]:
    return [record.trial for record, _ in searched(search, known, 500) if not record.is_reference]


@pytest.mark.parametrize("name", STEADY)
@pytest.mark.parametrize(
    "of", [{}, {"max_warmup_steps": 2, "Fn_compute_blocks": 2, "enable_taylorseer": True, "taylorseer_order": 2}]
)
def test_every_pattern_is_tried_exactly_once(name: str, of: dict[str, Any]) -> None:
    for seed in range(2):
        known = surface(name, seed)
        asked = tried(ThresholdSearch(space(**of), config()), known)
        patterns = [pattern(known, each) for each in asked]
        assert len(patterns) == len(set(patterns)), "no two are the same in disguise"
        missed = {each for each, _ in brute_force(known, 1000, **of)} - set(patterns)
        assert not missed


def test_each_setting_has_patterns_of_its_own() -> None:
    known = surface("smooth", 1)
    both = arrange([at(value, max_warmup_steps=steps) for steps in (2, 4) for value in TYPED])
    asked = tried(ThresholdSearch(both, config()), known)
    for steps in (2, 4):
        alone = tried(ThresholdSearch(space(max_warmup_steps=steps), config()), known)
        assert [t for t in asked if t.label.startswith(f"F1B0_W{steps}")] == alone


def test_what_was_typed_is_tried_first_and_said_to_be_equal_where_it_is() -> None:
    known, typed = surface("smooth", 2), [n / 100 for n in range(1, 61)]
    search = ThresholdSearch(space(typed), config())
    asked = tried(search, known)
    by_id = {each.trial_id: each for each in asked}
    left_out = {placed.trial.trial_id: why for placed, why in search.space.pruned}
    assert {at(value).trial_id for value in typed} <= by_id.keys() | left_out.keys(), "each has an answer"
    assert len(left_out) > 30
    for placed, why in search.space.pruned:
        (stands,) = [each for each in asked if each.trial_id in why]
        assert why.startswith(f"equal to {stands.label} (trial ") and pattern(known, placed.trial) == pattern(
            known, stands
        )


def test_it_says_how_many_patterns_there_are() -> None:
    known = surface("smooth", 2)
    search = ThresholdSearch(space(), config())
    before = list(search.remarks)
    many = len(tried(search, known))
    assert before == [
        "F1B0_W4_MC3: every threshold that skips other steps is tried once; how many, their differences say"
    ]
    (said,) = search.remarks[1:]
    assert said.startswith(f"F1B0_W4_MC3: {many} patterns of skipped steps, of {many} thresholds tried; up to 0.")


@pytest.mark.parametrize("typed", [(0.24,), (5.0,), (0.001, 1.0, 2.0), (0.0, 0.3)])
def test_whatever_was_typed_the_patterns_are_the_same(typed: tuple[float, ...]) -> None:
    known = surface("smooth", 5)
    search = ThresholdSearch(space(typed), config())
    patterns = [pattern(known, each) for each in tried(search, known)]
    assert sorted(patterns) == sorted(each for each, _ in brute_force(known))
    answered = {p.trial.trial_id for p, _ in search.space.pruned}
    assert {at(value).trial_id for value in typed if value >= 1 or value == 0} <= answered


@pytest.mark.parametrize("name", ["smooth", "cliffs", "noisy"])
@pytest.mark.parametrize("limit", [0.98, 0.95, 0.9, 0.8])
def test_with_a_limit_the_most_skipping_within_it_is_found_in_eight_trials(name: str, limit: float) -> None:
    """At the end of the search one pattern is within it and the next higher one is not; where likeness falls with the
    threshold there is one such place."""
    for seed in range(2):
        known = surface(name, seed)
        search = ThresholdSearch(space(), config(min_ssim=limit))
        asked = tried(search, known)
        assert len(asked) <= 8
        every = [(each, true_ssim(known, of) >= limit) for each, of in brute_force(known)]
        places = [low for (low, holds), (_, next_holds) in pairwise(every) if holds and not next_holds]
        within = [pattern(known, each) for each in asked if true_ssim(known, each) >= limit]
        best = max(within, default=None, key=[each for each, _ in every].index)
        assert best in places or (best == every[-1][0] and every[-1][1]) or (best is None and not every[1][1])
        if len(places) == 1 and not every[-1][1]:
            assert best == places[0]


def test_a_limit_on_what_prompts_ask_for_is_judged_too() -> None:
    known = surface("smooth", 1)
    search = ThresholdSearch(space(), config(min_prompt_fidelity=0.95, min_ssim=0.5))
    assert len(tried(search, known)) <= 8 and "within min_ssim=0.5 and min_prompt_fidelity=0.95" in search.remarks[-1]


def test_with_a_limit_what_was_typed_and_not_needed_is_left_out_with_the_reason() -> None:
    search = ThresholdSearch(space([n / 100 for n in range(1, 61)]), config(min_ssim=0.95))
    asked = {each.trial_id for each in tried(search, surface("smooth", 1))}
    reasons = [why for placed, why in search.space.pruned if placed.trial.trial_id not in asked]
    assert any("skips more, and is within min_ssim=0.95" in why for why in reasons)
    assert any("skips less, and is not within min_ssim=0.95" in why for why in reasons)
    assert len(asked & {at(n / 100).trial_id for n in range(1, 61)}) + len(reasons) == 60


@pytest.mark.parametrize("options", [{}, {"min_ssim": 0.95}])
def test_a_search_told_half_again_goes_on_where_it_was(options: dict[str, float]) -> None:
    known = surface("rugged", 1)
    whole = list(searched(ThresholdSearch(space(), config(**options)), known))
    again = ThresholdSearch(space(), config(**options))
    asking = WithReferences(again, "tests")
    for record, figures in whole[: len(whole) // 2]:
        placed = asking.next_placed()
        assert placed is not None and placed.trial.trial_id == record.trial_id
        asking.tell(record, figures)
    following = asking.next_placed()
    assert following is not None and following.trial.trial_id == whole[len(whole) // 2][0].trial_id


def test_where_differences_vary_from_call_to_call_it_ends_all_the_same() -> None:
    search = ThresholdSearch(space(), config())
    assert 5 < len(tried(search, surface("wobbling", 1))) < 100
    assert "from call to call" in search.remarks[-1]


def untold(placed: Any) -> Record:
    return complete(placed.trial, cached=(5,), diffs={})


def out_of_memory(placed: Any) -> Record:
    return failed(placed.trial)


@pytest.mark.parametrize(("made", "says"), [(untold, "does not tell"), (out_of_memory, "was killed by the kernel")])
def test_where_nothing_is_known_of_what_was_skipped_only_what_was_typed_is_tried(made: Any, says: str) -> None:
    search = ThresholdSearch(space(), config())
    asked = asking(search, made)
    assert [t.label for t in asked][1:] == [at(value).label for value in TYPED] and says in search.remarks[-1]


def asking(search: ThresholdSearch, made: Any) -> list[Trial]:
    found, first = [], WithReferences(search, "tests")
    while (placed := first.next_placed()) is not None:
        record = complete(placed.trial) if placed.is_reference else made(placed)
        first.tell(record, view_of([record]).trials[0])
        found.append(placed.trial)
    return found


def test_while_one_runs_no_other_of_its_setting_is_asked_for() -> None:
    search = ThresholdSearch(arrange([at(v, max_warmup_steps=w) for w in (2, 4) for v in TYPED]), config())
    waiting: Iterator[Trial | None] = iter(search.ask, None)
    assert [t.label for t in waiting if t] == ["none", "F1B0_W2_MC3_R0.12", "F1B0_W4_MC3_R0.12"]


def test_so_many_trials_are_the_most_and_a_larger_number_goes_on() -> None:
    known, few, more = surface("smooth", 1), config(), config()
    few.n_trials, more.n_trials = 4, 9
    first, second = (tried(ThresholdSearch(space(), each), known) for each in (few, more))
    assert len(first) == 4 and len(second) == 9 and second[:4] == first


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "search.seed"),
        ({"options": {"min_sim": 0.9}}, "search.options"),
        ({"options": {"min_ssim": 3}}, "search.options.min_ssim"),
        ({"options": {"min_ssim": "high"}}, "search.options"),
        ({"options": {"max_lpips": -1}}, "search.options.max_lpips"),
        ({"options": {"max_latency_s": 1}}, "search.options"),
    ],
)
def test_what_cannot_be_meant_is_named(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_search(replace(config(), **changes), space())


def test_random_weights_have_no_patterns() -> None:
    """`space` lets only a threshold be tried there that no difference reaches."""
    random = replace(at(10.0), pipeline=replace(at(10.0).pipeline, weights="random"))
    search = ThresholdSearch(arrange([random]), config())
    assert [t.label for t in asking(search, out_of_memory)] == ["none", "F1B0_W4_MC3_R10"] and not search.remarks


def test_a_reader_types_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    typed = (*HERE, "cache=dbcache", "cache.max_warmup_steps=4", "search=thresholds")
    quick = ("measure=quick", "measure.paired=false", "measure.max_warmup_rounds=1", "executor.share_device=true")
    done = zbench_here(tmp_path, "sweep", *typed, *quick, "sweep.name=s", "search.n_trials=5")
    assert done.returncode == 0 and "5 patterns of skipped steps, of 5 thresholds tried" in done.stderr, done.stderr
    assert "there are more" in done.stderr
    again = zbench_here(tmp_path, "sweep", *typed, *quick, "sweep.name=s", "search.n_trials=7")
    assert again.returncode == 0 and again.stderr.count("from the journal") == 6, "the reference too"
    records = read_records(tmp_path / "runs" / "s" / "records.jsonl")
    assert len({r.trial_id for r in records if r.state == "COMPLETE"}) == 8
    equal = ("search.options.min_ssim=0.95", "cache.residual_diff_threshold=0.11,0.12", "sweep.name=limit")
    limited = zbench_here(tmp_path, "sweep", *typed, *quick, *equal)
    assert limited.returncode == 0 and "skips most within min_ssim=0.95" in limited.stderr, limited.stderr
    left_out = [r for r in read_records(tmp_path / "runs" / "limit" / "records.jsonl") if r.state == "PRUNED"]
    assert left_out and all(r.reason is not None and "R0.1" in r.label for r in left_out)


def test_a_plan_says_what_will_be_sought(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, "plan", *HERE, "cache=dbcache", "search=thresholds", "search.options.min_ssim=0.95")
    assert (
        done.returncode == 0
        and "the threshold that skips most within min_ssim=0.95 is sought" in done.stdout + done.stderr
    )
