"""How far searches came, on records whose cost and likeness are written down."""

from dataclasses import replace

import pytest
from factories import SCENES, complete, demo_records, failed, pruned, trial
from of_searches import BASE, OPTUNA, judged, timed

from zbench.analysis.searches import judged_works, search_curves, searched_by
from zbench.analysis.view import view_of
from zbench.analysis.work import work_key
from zbench.config import DBCacheConfig

WORK = work_key(trial())


def test_the_volume_grows_by_what_each_trial_adds_in_the_order_of_the_journal() -> None:
    """0.5 saved at 0.8; then 0.25 at 0.9, of which 0.25 × 0.1 is new; then one that another beats."""
    records = [BASE, timed(0, 0.5, 0.8), timed(1, 0.75, 0.9), timed(2, 0.8, 0.7)]
    (curve,) = search_curves(view_of(records))
    assert (curve.name, curve.cost) == ("search=optuna", "time")
    assert curve.volumes == pytest.approx((0.0, 0.4, 0.425, 0.425))


def test_a_failed_trial_counts_and_covers_nothing_and_what_did_not_run_does_not_count() -> None:
    dead = replace(failed(trial(DBCacheConfig(Fn_compute_blocks=2))), command=OPTUNA)
    left_out = replace(pruned(trial(DBCacheConfig(Fn_compute_blocks=3))), command=OPTUNA)
    (curve,) = search_curves(view_of([BASE, dead, left_out, timed(0, 0.5, 0.8)]))
    assert curve.volumes == pytest.approx((0.0, 0.0, 0.4))


def test_samples_of_a_searchs_own_count_as_trials_of_the_work_that_they_are_for() -> None:
    rung = trial(DBCacheConfig(), workload=replace(SCENES, prompts=SCENES.prompts[:1]))
    part = replace(complete(rung, latency_s=0.1, ssim=1.0), command=OPTUNA, part_of=WORK)
    (curve,) = search_curves(view_of([part, BASE, timed(0, 0.5, 0.8)]))
    assert curve.volumes == pytest.approx((0.0, 0.0, 0.4))


def test_each_search_of_a_run_has_a_curve_and_each_run_too() -> None:
    other = [timed(n, 0.6, 0.9, OPTUNA.replace("optuna", "random")) for n in (5, 6)]
    curves = search_curves(view_of([BASE, timed(0, 0.5, 0.8), *other]))
    assert [(c.name, len(c.volumes)) for c in curves] == [("search=optuna", 2), ("search=random", 2)]
    elsewhere = [replace(r, sweep="second") for r in (BASE, timed(0, 0.5, 0.8))]
    names = [c.name for c in search_curves(view_of([BASE, timed(0, 0.5, 0.8), *elsewhere]))]
    assert names == ["demo search=optuna", "second search=optuna"]


def test_of_images_alone_the_cost_is_the_share_of_the_steps() -> None:
    """Half of 8 steps at 0.6, three quarters at 0.9."""
    records = [BASE, judged("11110000", 0.6), judged("11111100", 0.9)]
    curves = search_curves(view_of([replace(r, command="zbench sweep search=masks") for r in records]))
    assert [c.cost for c in curves] == ["steps"]
    assert curves[0].volumes == pytest.approx((0.0, 0.5 * 0.6, 0.5 * 0.6 + 0.25 * 0.3))
    (work,) = judged_works(view_of(records))
    assert dict(zip([row.ssim_worst for row in work.trials], work.computed, strict=True)) == {None: 8, 0.6: 4, 0.9: 6}


def test_a_grid_that_was_timed_has_neither() -> None:
    view = view_of(demo_records())
    assert search_curves(view) == [] and judged_works(view) == []


@pytest.mark.parametrize(
    ("command", "search"),
    [
        (OPTUNA, "optuna"),
        ("zbench tune --min-ssim 0.9", "tune"),
        ("zbench sweep cache=dbcache", None),
        ("zbench sweep 'workload.prompt=a search=masks' search=random search.n_trials=2", "random"),
        ("zbench sweep 'torn", None),
        (None, None),
    ],
)
def test_which_search_made_a_trial_is_what_was_typed(command: str | None, search: str | None) -> None:
    assert searched_by(replace(BASE, command=command)) == search
