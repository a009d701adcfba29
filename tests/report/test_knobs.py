"""What changed nothing is named with the trials that show it, and a threshold is judged by the differences seen."""

from dataclasses import replace

import pytest
from factories import STEPS, complete, demo_records, failed, measurement, trial, with_window

from zbench.analysis.steps import residual_diffs
from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig, SCMConfig
from zbench.report.plots.canvas import png_bytes
from zbench.report.plots.residuals import MOST_LINES, residual_differences, telling_residuals
from zbench.report.text.knobs import knobs_without_effect

DIFFS = {4: 0.30, 5: 0.181, 6: 0.25}


def ordered(*records):
    return view_of(records)


def said_of(*records):
    return knobs_without_effect(ordered(*records))


def taylor(order, **parameters):
    return trial(DBCacheConfig(enable_taylorseer=True, taylorseer_order=order, **parameters))


def test_a_knob_that_changes_neither_steps_nor_images_is_named():
    first, _ = said_of(*(complete(taylor(order), cached=(5,), ssim=0.9) for order in (1, 2)))
    assert first == (
        "taylorseer_order=1, 2 had no effect: F1B0_W4_MC3_R0.24_T1O1 and F1B0_W4_MC3_R0.24_T1O2 give the same steps "
        "and images."
    )


@pytest.mark.parametrize("figures", [{"cached": (5,), "ssim": 0.91}, {"cached": (6,), "ssim": 0.9}])
def test_other_steps_or_other_images_are_an_effect(figures):
    assert said_of(complete(taylor(1), cached=(5,), ssim=0.9), complete(taylor(2), **figures)) == []


def test_every_image_must_be_the_same():
    records = [complete(taylor(order), cached=(5,), ssim=0.9) for order in (1, 2)]
    first, *rest = records[1].measurement.requests
    other = with_window(records[1].measurement, requests=[replace(first, image_sha256="another"), *rest])
    assert said_of(records[0], replace(records[1], measurement=other)) == []


def test_trials_without_a_known_image_are_not_called_the_same():
    unknown = []
    for order in (1, 2):
        made = measurement(taylor(order), cached=(5,), ssim=0.9)
        rounds = [replace(r, image_sha256=None) for r in made.requests]
        unknown.append(complete(taylor(order), cached=(5,), ssim=0.9, requests=rounds))
    assert said_of(*unknown) == []


def test_one_knob_is_told_once_for_all_the_groups_that_show_it():
    records = [
        complete(taylor(order, residual_diff_threshold=limit), cached=(5,), ssim=limit)
        for limit in (0.3, 0.4)
        for order in (1, 2)
    ]
    first, *_ = said_of(*records)
    assert first.startswith("taylorseer_order=1, 2 had no effect: ") and first.count("; so do ") == 1
    assert all(record.label in first for record in records)


def test_the_order_of_a_taylorseer_that_is_off_is_no_knob():
    off = [trial(DBCacheConfig(taylorseer_order=order)) for order in (1, 2)]
    assert said_of(*(complete(t, cached=(5,), ssim=0.9) for t in off)) == []


def test_a_mask_and_a_threshold_are_two_ways_and_no_knob():
    assert said_of(*(complete(trial(c), cached=(5,), ssim=0.9) for c in (DBCacheConfig(), SCMConfig()))) == []


def test_a_threshold_that_never_fired_says_which_one_would():
    low = trial(DBCacheConfig(residual_diff_threshold=0.12))
    first, _ = said_of(complete(trial()), complete(low, diffs=DIFFS))
    assert first == (
        "residual_diff_threshold=0.12 never fired (F1B0_W4_MC3_R0.12): the smallest difference was 0.181 at step 5; "
        "from 0.182 on it would skip."
    )


def test_trials_that_skipped_nothing_share_a_sentence_and_are_in_no_other():
    low = [trial(DBCacheConfig(residual_diff_threshold=limit)) for limit in (0.12, 0.05)]
    said = said_of(*(complete(t, diffs=DIFFS) for t in low))
    assert [text.partition(" never")[0] for text in said[:-1]] == ["residual_diff_threshold=0.05, 0.12"]
    assert not any("had no effect" in text for text in said)


def test_a_step_that_was_not_compared_has_no_difference():
    record = complete(trial(DBCacheConfig()), n_rounds=2, diffs={4: -1.0, 5: 0.3})
    assert residual_diffs(record.measurement) == {5: [0.3, 0.31]}
    assert "no step was compared" in said_of(complete(trial(DBCacheConfig()), diffs={4: -1.0}))[0]


def test_a_difference_under_the_threshold_that_was_not_skipped_is_not_blamed_on_the_threshold():
    (first, *_) = said_of(complete(trial(DBCacheConfig()), diffs={5: 0.2}))
    assert "something else forbids it" in first and "would skip" not in first


def test_a_forced_mask_asks_no_threshold():
    assert said_of(complete(trial(SCMConfig(scm_policy="static")), diffs=DIFFS)) == []


def test_the_defaults_say_which_thresholds_would_change_something():
    low = trial(DBCacheConfig(residual_diff_threshold=0.12))
    *_, last = said_of(complete(low, diffs=DIFFS), complete(trial(DBCacheConfig()), cached=(5,), ssim=0.9, diffs=DIFFS))
    # The factory's second image lies 0.01 above the first.
    assert last.startswith(
        "With F1B0_W4_MC3_R0.24 the median differences are 0.186 (step 5), 0.255 (step 6), 0.305 (step 4): "
    )
    assert "approximate" in last


def test_where_every_knob_works_nothing_is_said():
    assert said_of(complete(trial()), complete(trial(DBCacheConfig()), cached=(5,), ssim=0.9, diffs=DIFFS)) == []


def test_trials_without_figures_say_nothing():
    assert said_of(failed(trial(DBCacheConfig()))) == []


def test_the_plot_shows_distinct_trials_in_their_order_and_the_defaults():
    lines = telling_residuals(ordered(*[r for r in demo_records() if r.measurement is not None]))
    labels = [line.label for line in lines]
    assert len(labels) == MOST_LINES and "F1B0_W4_MC3_R0.24" in labels
    assert not any("SCM" in label for label in labels)
    assert not any("T1O1" in label for label in labels)  # they differ by nothing that the threshold sees
    figure = residual_differences(lines, [])
    dashed = {line.get_ydata()[0] for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1}
    assert dashed >= {0.12, 0.24, 0.4}
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_every_window_of_compared_steps_comes_before_a_second_threshold():
    caches = [DBCacheConfig(residual_diff_threshold=0.3 + 0.01 * i) for i in range(MOST_LINES)]
    caches.append(DBCacheConfig(max_warmup_steps=2))
    records = [complete(trial(c), diffs={s: 0.5 + 0.01 * i for s in range(4, STEPS)}) for i, c in enumerate(caches)]
    labels = [line.label for line in telling_residuals(ordered(*records))]
    assert len(labels) == MOST_LINES and "F1B0_W2_MC3_R0.24" in labels


def test_without_differences_there_is_no_plot():
    lines = telling_residuals(ordered(complete(trial()), complete(trial(DBCacheConfig()))))
    assert lines == [] and residual_differences(lines, []) is None
