"""What tune gives as safe keeps its limits on samples that it was not chosen on, too."""

from dataclasses import replace
from pathlib import Path

import pytest
from factories import SCENES
from surfaced import true_ssim
from surfaces import Surface, surface
from tuned_surfaces import COMPILED, EAGER, FORCED, at, space_of, tuned, tuned_with_records

from zbench.analysis.constraints import Limits
from zbench.analysis.view import view_of
from zbench.config import CacheConfig, DBCacheConfig, Prompt
from zbench.errors import NothingFeasibleError
from zbench.methods.cache import method_of
from zbench.recommend import recommend
from zbench.recommend.tuned import path_dict, path_text
from zbench.record import Record
from zbench.search.tune.search import TuneSearch
from zbench.search.tune.validate import validation_of
from zbench.space import arrange

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
CACHES = (CacheConfig(), *FORCED, *(DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=r) for r in THRESHOLDS))
SPACE = space_of((EAGER, COMPILED), CACHES)
LIMIT = 0.85


Run = tuple[Surface, TuneSearch, list[Record]]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Noise, so that no two have the same speed."""
    return [(on, *tuned_with_records(SPACE, on, min_ssim=LIMIT)) for on in (surface("noisy", n) for n in range(4))]


def test_the_answer_keeps_the_limit_on_samples_held_out_and_what_was_left_out_misses_it(runs: list[Run]) -> None:
    left_out = 0
    for on, search, _ in runs:
        decider = search.stories[0].decider
        best = decider.best
        assert best is not None and decider.held_out.seeds == [1]
        skips = method_of(best.trial.cache).skips
        assert not skips or true_ssim(on, replace(best.trial, workload=decider.held_out)) >= LIMIT
        for trial_id in decider.broken:
            assert true_ssim(on, replace(decider.told[trial_id].trial, workload=decider.held_out)) < LIMIT
        left_out += len(decider.broken)
    assert left_out, "of four surfaces one has a winner that suits its own samples alone"


def test_recommend_chooses_the_same_from_the_records_and_says_both_figures(runs: list[Run]) -> None:
    for _, search, records in runs:
        decider = search.stories[0].decider
        (answer,) = recommend(view_of(records), Limits(min_ssim=LIMIT)).answers
        assert answer.chosen.trial_id == decider.best.trial.trial_id
        found = validation_of(decider, decider.best)
        assert found is not None and found.holds and f"on samples held out {found.limits[0][1]}" in answer.notes
        for trial_id in decider.broken:
            left_out = (
                f"{decider.told[trial_id].row.label} workload.seeds=[0] was left out: on samples held out SSIM of"
            )
            assert any(note.startswith(left_out) for note in answer.notes)


def test_one_that_breaks_a_limit_there_is_told_so_and_is_not_the_answer(runs: list[Run]) -> None:
    search = next(search for _, search, _ in runs if search.stories[0].decider.broken)
    text, told = path_text(search), path_dict(search)["works"][0]["held_out"]
    assert "On samples held out, 2 pairs of prompt and seed that nothing was chosen on:" in text
    assert "misses a limit there, so it is not the answer: SSIM of the worst image is" in text
    assert "on those that it was chosen on)" in text and "and validated on 2 others" in text
    assert told[0]["holds"] is False and told[0]["limits"][0]["held_out"] < LIMIT <= told[0]["limits"][0]["chosen_on"]
    assert told[-1]["holds"] is True and told[-1]["samples"] == {"chosen_on": 2, "held_out": 2}


def test_only_the_images_of_the_answer_are_judged_there() -> None:
    _, records = tuned_with_records(SPACE, surface("smooth", 1), min_ssim=LIMIT)
    others = [record for record in records if record.trial.workload.seeds == [1]]
    assert others[0].is_reference and others == records[-len(others) :]
    assert all(record.measurement.quality_only for record in others[1:]) and len(others) <= 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_ssim": LIMIT, "holdout_seeds": []}, "and judged on the same, none held out"),
        ({}, "without a limit on images nothing was chosen by them"),
        ({"min_ssim": 0.9999}, "and its images there are the reference's but for noise"),
        ({"min_ssim": LIMIT, "budget": 7}, "and not validated on others: the budget ended before that"),
    ],
)
def test_where_nothing_is_held_out_it_says_why(options: dict[str, object], says: str) -> None:
    search = tuned(SPACE, surface("smooth", 1), **options)
    assert says in path_text(search) and not search.stories[0].decider.checked


def test_other_prompts_may_be_held_out(tmp_path: Path) -> None:
    """By a file, as `workload.prompts_file` has it."""
    (tmp_path / "others.txt").write_text("a small green square\n")
    search = tuned(SPACE, surface("smooth", 1), min_ssim=LIMIT, holdout_prompts=str(tmp_path / "others.txt"))
    held_out = search.stories[0].decider.held_out
    assert [prompt.text for prompt in held_out.prompts] == ["a small green square"] and held_out.seeds == [0]


def test_where_all_that_were_timed_miss_a_limit_there_nothing_is_recommended(runs: list[Run]) -> None:
    """Records without the reference, which keeps it everywhere."""
    search, records = next((s, r) for _, s, r in runs if s.stories[0].decider.broken)
    broken = search.stories[0].decider.broken
    kept = [record for record in records if record.trial.workload.seeds == [1] or record.trial_id in broken]
    with pytest.raises(NothingFeasibleError, match="was left out: on samples held out"):
        recommend(view_of(kept), Limits(min_ssim=LIMIT))


def test_work_that_differs_has_samples_of_its_own() -> None:
    other = replace(SCENES, prompts=[Prompt(id="p", text="a blue ring")], seeds=[3, 4])
    search = tuned(space_of(caches=CACHES), surface("smooth"), min_ssim=LIMIT)
    assert search.stories[0].decider.held_out.seeds == [1]
    both = arrange([at(cache, workload=work) for cache in CACHES for work in (SCENES, other)])
    stories = tuned(both, surface("smooth"), min_ssim=LIMIT).stories
    assert [story.decider.held_out.seeds for story in stories] == [[1], [5, 6]]
    assert all(validation_of(s.decider, s.decider.best) is not None for s in stories)
