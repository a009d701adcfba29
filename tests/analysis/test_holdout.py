"""Masks on the samples that they were chosen on, beside others."""

from dataclasses import replace

import pytest
from factories import SCENES, complete, trial

from zbench.analysis.holdout import held_out_masks
from zbench.analysis.view import view_of
from zbench.analysis.work import work_key
from zbench.config import CacheConfig, DBCacheConfig, SCMConfig
from zbench.record import Record
from zbench.report.tables.holdout import holdout_table

MASKS = ("11110000", "11111000", "11111100")
WORK = work_key(trial(workload=replace(SCENES, seeds=[0])))


def of(
    mask: str | None, seeds: list[int], ssim: float | None = None, latency_s: float = 1.0, first_blocks: int = 1
) -> Record:
    """For the work of seed 0, whatever its own seeds are."""
    masked = SCMConfig(steps_mask=mask, scm_policy="static", Fn_compute_blocks=first_blocks)
    cache = CacheConfig() if mask is None else masked
    record = complete(trial(cache, workload=replace(SCENES, seeds=seeds)), ssim=ssim, latency_s=latency_s)
    return replace(record, part_of=None if seeds == [0] else WORK)


CHOSEN_ON = [of(None, [0]), *(of(mask, [0], 0.9 + 0.02 * i, 0.5) for i, mask in enumerate(MASKS))]
HELD_OUT = [of(None, [1, 2]), of(MASKS[1], [1, 2], 0.85)]


def test_a_mask_is_shown_on_both_sides_whatever_was_written_first() -> None:
    found = held_out_masks(view_of([*HELD_OUT, *CHOSEN_ON]))
    assert [(each.mask, each.samples) for each in found] == [("1" * 8, (2, 4)), (MASKS[1], (2, 4))]
    assert [found[1].chosen.ssim_worst, found[1].held_out.ssim_worst] == [0.92, 0.85]


@pytest.mark.parametrize("masks", [1, 2, 3])
def test_as_many_may_be_held_out_as_were_tried(masks: int) -> None:
    """A search that times all that it tried holds all of them to other samples."""
    tried = [of(None, [0]), *(of(mask, [0], 0.9) for mask in MASKS[:masks])]
    held_out = [of(None, [1]), *(of(mask, [1], 0.8) for mask in MASKS[:masks])]
    table = holdout_table(view_of([*tried, *held_out]))
    assert table is not None and len(table.rows) == 1 + masks


def test_samples_that_were_typed_hold_nothing_out() -> None:
    typed = [replace(record, part_of=None) for record in HELD_OUT]
    assert held_out_masks(view_of(CHOSEN_ON)) == held_out_masks(view_of([*CHOSEN_ON, *typed])) == []


def test_some_of_the_same_samples_are_none_that_are_held_out() -> None:
    both = [of(None, [0, 1]), of(MASKS[0], [0, 1], 0.9)]
    assert held_out_masks(view_of([*CHOSEN_ON, *both])) == []


def test_one_mask_of_two_settings_stands_beside_its_own_setting() -> None:
    two = [of(MASKS[0], seeds, ssim, 1.0, n) for seeds, ssim, n in (([0], 0.7, 2), ([1], 0.6, 2), ([1], 0.8, 1))]
    found = held_out_masks(view_of([*CHOSEN_ON, *two]))
    assert {(each.chosen.ssim_worst, each.held_out.ssim_worst) for each in found} == {(0.7, 0.6), (0.9, 0.8)}


def test_what_a_threshold_skips_is_no_mask() -> None:
    others = [complete(trial(DBCacheConfig(), workload=replace(SCENES, seeds=[3])), ssim=0.9)]
    assert len(held_out_masks(view_of([*CHOSEN_ON, *HELD_OUT, *others]))) == 2


def test_the_table_has_both_figures_side_by_side() -> None:
    table = holdout_table(view_of([*CHOSEN_ON, *HELD_OUT]))
    assert table is not None
    assert table.headers[3:5] == ("SSIM (worst) on 2", "on 4 held out")
    row = table.rows[1]
    assert row[1:] == ("5 of 8", "2.00×", "0.925 (0.920)", "0.865 (0.850)")
    assert table.legend[-1].endswith("by the worst image: 1 of 1 trial.")
    assert holdout_table(view_of(CHOSEN_ON)) is None
