"""Looking often costs no certainty, what is clear stops early, and many trials are wrong no more often than one."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from zbench.stats import (
    BlockSamples,
    Kind,
    LookSchedule,
    RefusalReason,
    Verdict,
    compare_rounds,
    correct_for_many,
    judge,
    look,
)

PATH = Path(__file__).parents[2] / "benchmarks" / "error_rates.py"


def error_rates():
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("error_rates", PATH)
    module = sys.modules["error_rates"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(count: int, factor: float, sigma: float = 0.01, seed: int = 0) -> list[BlockSamples]:
    rounds = np.exp(np.random.default_rng(seed).normal(0, sigma, (count, 4)))
    return [BlockSamples(row[:2], [factor * value for value in row[2:]]) for row in rounds.tolist()]


def stop_of(all_blocks: list[BlockSamples], plan: LookSchedule, margin: float = 0.01):
    for count in plan.looks:
        found = look(all_blocks[:count], plan, margin)
        if found.stop:
            return found
    raise AssertionError("it never stopped")


@pytest.mark.parametrize(
    "plan", [LookSchedule(), LookSchedule(looks=(10, 20, 30)), LookSchedule(looks=(20, 25, 70, 80), level=0.9)]
)
def test_the_levels_spend_the_error_once_over_all_looks(plan):
    # 400 000 paths of a Brownian motion, seen at the looks: the share that ever leaves the bounds is the error.
    steps = np.sqrt(np.diff((0, *plan.looks)))
    paths = np.cumsum(np.random.default_rng(1).normal(size=(400_000, len(steps))) * steps, axis=1)
    bounds = scipy.stats.norm.isf((1 - np.array(plan.levels())) / 2)
    left = np.abs(paths / np.sqrt(plan.looks)) > bounds
    assert left.any(axis=1).mean() == pytest.approx(1 - plan.level, abs=0.0015)
    spent = np.maximum.accumulate(left, axis=1).mean(axis=0)
    assert spent == pytest.approx((1 - plan.level) * (np.array(plan.looks) / plan.looks[-1]) ** 3, abs=0.0015)


def test_a_single_look_costs_nothing():
    assert LookSchedule(looks=(30,)).levels() == (pytest.approx(0.95, abs=1e-6),)


def test_half_way_an_eighth_of_the_error_is_spent():
    first, last = LookSchedule(looks=(50, 100)).levels()
    assert first == pytest.approx(1 - 0.05 / 8, abs=1e-6)
    assert 1 - 0.05 < last < 1 - 0.05 * 7 / 8


@pytest.mark.parametrize("true_ratio", [1.01, 0.99])
def test_at_the_margin_itself_each_wrong_verdict_stays_below_its_2_5_percent(true_ratio):
    # At exactly +1 % SLOWER is wrong; so is FASTER at exactly -1 %. 1200 runs: 3 standard errors are 1.35 points.
    wrong = Verdict.SLOWER if true_ratio > 1 else Verdict.FASTER
    plan = LookSchedule(looks=(12, 24, 36))
    verdicts = [stop_of(blocks(36, true_ratio, 0.02, seed), plan).judgement.verdict for seed in range(1200)]
    assert verdicts.count(wrong) / 1200 <= 0.025 + 0.0135


def test_a_clear_verdict_stops_early_and_an_unclear_one_goes_on():
    plan = LookSchedule()
    early = look(blocks(15, 1.5), plan, 0.01)
    assert (early.stop, early.blocks) == (False, 0)
    assert early.judgement.verdict is Verdict.INCONCLUSIVE
    slower = look(blocks(16, 1.5), plan, 0.01)
    assert (slower.stop, slower.judgement.verdict) == (True, Verdict.SLOWER)
    unclear = look(blocks(24, 1.01), plan, 0.01)
    assert unclear.stop is False
    assert stop_of(blocks(80, 1.01), plan).blocks == 80


def test_blocks_between_looks_change_nothing():
    plan, many = LookSchedule(), blocks(39, 1.01)
    assert look(many, plan, 0.01) == look(many[:24], plan, 0.01)
    more = blocks(100, 1.01)
    assert look(more, plan, 0.01) == look(more[:80], plan, 0.01)


def test_when_the_budget_ends_the_error_left_is_spent_on_all_blocks():
    plan, many = LookSchedule(), blocks(50, 1.013)
    found = look(many, plan, 0.01, ended=True)
    assert (found.stop, found.blocks) == (True, 50)
    assert plan.levels()[2] > found.judgement.outcome.level > 0.95
    assert look([], plan, 0.01, ended=True).judgement.outcome.reason is RefusalReason.NOTHING_TO_COMPARE
    assert look(many[:3], plan, 0.01, ended=True).judgement.outcome.reason is RefusalReason.TOO_FEW_SAMPLES


def test_data_that_more_blocks_cannot_mend_stop_it_without_a_pass():
    bad = [*blocks(15, 1.0), BlockSamples([1.0, 1.0], [1.0, math.nan])]
    found = look(bad, LookSchedule(), 0.01)
    assert found.stop and found.judgement.verdict is Verdict.INCONCLUSIVE
    assert found.judgement.outcome.reason is RefusalReason.NAN


def test_an_absolute_margin_is_asked_of_the_difference():
    scores = [BlockSamples([0.9, 0.9], [0.88, 0.88])] * 24
    found = look(scores, LookSchedule(), 0.01, Kind.ABSOLUTE, higher_is_better=True)
    assert found.judgement.verdict is Verdict.SLOWER
    assert look(scores, LookSchedule(), 0.03, Kind.ABSOLUTE, higher_is_better=True).judgement.verdict is Verdict.SAME


@pytest.mark.parametrize("looks", [(), (0, 10), (10, 10), (20, 10)])
def test_looks_that_do_not_rise_are_an_error(looks):
    with pytest.raises(ValueError, match="looks"):
        LookSchedule(looks=looks)
    with pytest.raises(ValueError, match="level"):
        LookSchedule(level=1.0)


def test_many_equal_trials_are_together_called_different_no_more_often_than_one(monkeypatch):
    # Ten trials against one shared baseline, margin 0: any SLOWER or FASTER is wrong. Uncorrected, 4 in 10 families
    # would have one.
    monkeypatch.setattr("zbench.stats.bootstrap.LEAST_RESAMPLES", 1000)
    rng, families, wrong = np.random.default_rng(2), 60, 0
    for _ in range(families):
        base, *trials = ([("a", value) for value in rng.normal(1.0, 0.02, 14).tolist()] for _ in range(11))
        level = correct_for_many(len(trials))
        verdicts = [judge(compare_rounds(trial, base, level=level), 0.0).verdict for trial in trials]
        wrong += any(verdict in (Verdict.SLOWER, Verdict.FASTER) for verdict in verdicts)
    assert wrong / families <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / families)


@pytest.mark.parametrize("slower", [0.0, 0.02, 0.05])
def test_the_error_rates_hold_on_every_noise(slower):
    module = error_rates()
    for name, noise in module.NOISES.items():
        found = module.rates(noise, slower, 60, 3, LookSchedule())
        assert found.holds(), f"{name}: {found}"


def test_the_error_rates_hold_on_recorded_rounds(tmp_path):
    module = error_rates()
    rng = np.random.default_rng(5)
    latencies = 0.5 * np.exp(module.NOISES["bursts, 1.5 %"](rng, 400))
    path = tmp_path / "rounds.csv"
    path.write_text("latency_s\n" + "\n".join(map(str, latencies.tolist())) + "\n")
    for slower in (0.0, 0.02, 0.05):
        assert module.rates(module.recorded(path), slower, 60, 3, LookSchedule()).holds()


@pytest.mark.parametrize(
    "text", ["", "seconds\n" + "1.0\n" * 200, "latency_s\nfast\n", "latency_s\n1.0\n", "latency_s\n" + "nan\n" * 200]
)
def test_a_file_that_is_no_recording_is_refused(text, tmp_path):
    path = tmp_path / "rounds.csv"
    path.write_text(text)
    with pytest.raises(SystemExit, match=r"rounds\.csv"):
        error_rates().recorded(path)
