"""What misses a limit on samples that it was not chosen on is never recommended."""

from dataclasses import replace

import pytest
from factories import SCENES, complete, trial
from surfaced import untimed

from zbench.analysis.constraints import Limits
from zbench.analysis.view import view_of
from zbench.analysis.work import work_key
from zbench.config import Prompt, SCMConfig, WorkloadConfig
from zbench.recommend import Recommendation, recommend
from zbench.record import Record

MASK = SCMConfig(steps_mask="11000000", scm_policy="static")
OTHER_SEED = replace(SCENES, seeds=[1])
OTHER_PROMPTS = replace(SCENES, prompts=[Prompt(id="p", text="a blue ring")])
REFERENCE = complete(trial())
SKIPS = complete(trial(MASK), latency_s=0.5, ssim=0.95, cached=(2, 3, 4, 5, 6, 7))
WORK = work_key(trial())


def judged(ssim: float, workload: WorkloadConfig = OTHER_SEED, part_of: str | None = WORK) -> Record:
    """The mask's images alone, on other samples."""
    record = complete(trial(MASK, workload=workload), ssim=ssim, cached=(2, 3, 4, 5, 6, 7))
    assert record.measurement is not None
    return replace(record, part_of=part_of, measurement=untimed(record.measurement, len(workload.prompts)))


def answers(*records: Record) -> list[Recommendation]:
    found = recommend(view_of([REFERENCE, SKIPS, *records]), Limits(min_ssim=0.9)).answers
    assert all(isinstance(each, Recommendation) for each in found)
    return [each for each in found if isinstance(each, Recommendation)]


def test_without_other_samples_the_mask_is_the_answer() -> None:
    (only,) = answers()
    assert only.chosen.trial_id == SKIPS.trial_id and not any("held out" in note for note in only.notes)


@pytest.mark.parametrize("workload", [OTHER_SEED, OTHER_PROMPTS], ids=["seeds", "prompts"])
def test_a_mask_that_misses_a_limit_on_samples_held_out_is_left_out(workload: WorkloadConfig) -> None:
    (only,) = answers(judged(0.8, workload))
    assert only.chosen.trial_id == REFERENCE.trial_id
    (said,) = [note for note in only.notes if "held out" in note]
    assert "was left out: on samples held out SSIM of the worst image is 0.8, 0.1 short of --min-ssim 0.9" in said


def test_one_that_keeps_it_there_stays_and_says_so() -> None:
    (only,) = answers(judged(0.93), replace(complete(trial(workload=OTHER_SEED)), part_of=WORK))
    assert only.chosen.trial_id == SKIPS.trial_id
    assert "on samples held out SSIM of the worst image is 0.93, within --min-ssim 0.9" in only.notes


def test_what_was_judged_for_other_work_says_nothing_of_this() -> None:
    (only,) = answers(judged(0.8, part_of=work_key(trial(workload=OTHER_PROMPTS))))
    assert only.chosen.trial_id == SKIPS.trial_id


def test_a_rung_is_some_of_the_samples_and_holds_none_out() -> None:
    """Its worst image is not the whole work's: of halving, each rung has the ones of those before it."""
    few = replace(SCENES, prompts=SCENES.prompts[:1])
    (only,) = answers(replace(complete(trial(MASK, workload=few), ssim=0.8), part_of=WORK))
    assert only.chosen.trial_id == SKIPS.trial_id and not any("held out" in note for note in only.notes)


def test_what_a_search_holds_out_counts_where_its_samples_were_typed_too() -> None:
    reference = replace(complete(trial(workload=OTHER_SEED)), held_out_for=(WORK,))
    first, second = answers(reference, replace(judged(0.8, part_of=None), held_out_for=(WORK,)))
    assert first.chosen.trial_id == REFERENCE.trial_id
    assert any("was left out: on samples held out SSIM of the worst image is 0.8" in note for note in first.notes)
    assert second.chosen.trial_id == reference.trial_id, "and they keep an answer of their own"


def test_samples_that_were_typed_keep_their_own_answer_whatever_was_timed_there() -> None:
    """A search has judged the mask on them too, and no search says that they are there for others' sake."""
    first, second = answers(complete(trial(workload=OTHER_SEED)), judged(0.8, part_of=None))
    assert first.chosen.trial_id == SKIPS.trial_id
    assert second.chosen.trial_id == trial(workload=OTHER_SEED).trial_id
