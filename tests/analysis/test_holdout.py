"""Masks on the samples that they were chosen on, beside others."""

from dataclasses import replace

from factories import SCENES, complete, trial

from zbench.analysis.holdout import held_out_masks
from zbench.analysis.view import view_of
from zbench.config import CacheConfig, DBCacheConfig, SCMConfig
from zbench.record import Record
from zbench.report.tables.holdout import holdout_table

MASKS = ("11110000", "11111000", "11111100")


def of(mask: str | None, seeds: list[int], ssim: float | None = None, latency_s: float = 1.0) -> Record:
    cache = CacheConfig() if mask is None else SCMConfig(steps_mask=mask, scm_policy="static")
    return complete(trial(cache, workload=replace(SCENES, seeds=seeds)), ssim=ssim, latency_s=latency_s)


CHOSEN_ON = [of(None, [0]), *(of(mask, [0], 0.9 + 0.02 * i, 0.5) for i, mask in enumerate(MASKS))]
HELD_OUT = [of(None, [1, 2]), of(MASKS[1], [1, 2], 0.85)]


def test_a_mask_is_shown_on_both_and_the_samples_of_most_masks_are_those_it_was_chosen_on() -> None:
    found = held_out_masks(view_of([*HELD_OUT, *CHOSEN_ON]))
    assert [(each.mask, each.samples) for each in found] == [("1" * 8, (2, 4)), (MASKS[1], (2, 4))]
    assert [found[1].chosen.ssim_worst, found[1].held_out.ssim_worst] == [0.92, 0.85]


def test_masks_of_one_workload_alone_and_of_two_alike_hold_nothing_out() -> None:
    assert held_out_masks(view_of(CHOSEN_ON)) == []
    assert held_out_masks(view_of([of(None, [0]), of(None, [1])])) == []


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
