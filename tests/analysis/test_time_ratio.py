"""How much longer a trial takes than another: by turns where there are any, however the machine drifted meanwhile."""

import math
from dataclasses import replace

import numpy as np
import pytest
from factories import complete, trial, with_window

from zbench.analysis.one_knob import knob_pairs
from zbench.analysis.time_ratio import TimeRatio, time_ratio
from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.measurement import Cold, Memory, Request
from zbench.record import Record
from zbench.trial import Trial

UNCACHED = trial()
FEW, MANY = (trial(DBCacheConfig(max_warmup_steps=n)) for n in (2, 4))
FEW_S, MANY_S, UNCACHED_S = 0.8, 1.0, 2.0
ROUNDS = 24
SLOWER = 1.5
"""What the machine becomes between two windows."""


def rounds(of: Trial, latency_s: float, seed: int, drift: float = 1.0) -> list[Request]:
    """Of a trial on a machine that becomes slower by a factor up to `drift`; single calls scatter by 2 %."""
    scatter = np.random.default_rng(seed).normal(0, 0.02, ROUNDS)
    made = complete(of, latency_s=latency_s, spread=0.0, n_rounds=ROUNDS).measurement.requests
    return [replace(r, latency_s=r.latency_s * math.exp(scatter[r.index]) * drift ** (r.index / ROUNDS)) for r in made]


def beside(uncached: list[Request], own: list[Request], of: Trial) -> Record:
    """A trial that took turns with these requests of another."""
    record, theirs = complete(of), [replace(each, role="baseline") for each in uncached]
    return replace(record, measurement=with_window(record.measurement, requests=[*theirs, *own]))


def by_turns(of: Trial, latency_s: float, slowed: float = 1.0, *, seed: int = 1, other: Trial = UNCACHED) -> Record:
    """One that took turns with the uncached trial, in a window in which all took `slowed` times as long."""
    return beside(rounds(other, UNCACHED_S * slowed, seed), rounds(of, latency_s * slowed, seed + 100), of)


def of_one_window(drift: float) -> tuple[Record, Record]:
    uncached = rounds(UNCACHED, UNCACHED_S, 1, drift)
    return beside(uncached, rounds(MANY, MANY_S, 2, drift), MANY), beside(uncached, rounds(FEW, FEW_S, 3, drift), FEW)


def ratio(new: Record, base: Record, *, one_process: bool = True) -> TimeRatio:
    found = time_ratio(new, base, one_process=one_process)
    assert found is not None and found.low <= found.estimate <= found.high
    return found


def test_what_was_slower_in_another_window_is_no_difference_of_settings() -> None:
    found = ratio(by_turns(MANY, MANY_S), by_turns(FEW, FEW_S, SLOWER, seed=7))
    assert found.estimate == pytest.approx(MANY_S / FEW_S, rel=0.02)
    assert found.low > 1.2 and found.high < 1.3
    alike = ratio(by_turns(MANY, FEW_S), by_turns(FEW, FEW_S, SLOWER, seed=7))
    assert alike.low < 1 < alike.high and alike.estimate == pytest.approx(1, rel=0.02)


def test_two_of_one_window_are_compared_with_each_other() -> None:
    many, few = of_one_window(drift=3.0)
    found = ratio(many, few)
    assert found.estimate == pytest.approx(MANY_S / FEW_S, rel=0.02)
    through_the_third = ratio(by_turns(MANY, MANY_S), by_turns(FEW, FEW_S, SLOWER, seed=7))
    assert found.high - found.low < through_the_third.high - through_the_third.low


def test_one_that_took_turns_with_the_other_is_compared_by_those() -> None:
    few, uncached = by_turns(FEW, FEW_S, SLOWER), complete(UNCACHED, latency_s=UNCACHED_S, n_rounds=ROUNDS)
    assert ratio(few, uncached).estimate == pytest.approx(FEW_S / UNCACHED_S, rel=0.02)
    assert ratio(uncached, few).estimate == pytest.approx(UNCACHED_S / FEW_S, rel=0.02)


def test_without_turns_two_are_compared_as_they_were_measured_and_processes_differ() -> None:
    few, many = (complete(of, latency_s=s, n_rounds=ROUNDS) for of, s in ((FEW, FEW_S), (MANY, MANY_S)))
    one, two = ratio(many, few), ratio(many, few, one_process=False)
    assert one.estimate == two.estimate == pytest.approx(MANY_S / FEW_S, rel=0.01)
    assert two.low < one.low and one.high < two.high
    assert two.high / two.estimate > 1.0196, "1 % is what equal processes differ by where nobody measured it"
    elsewhere = by_turns(FEW, FEW_S, SLOWER, other=trial(pipeline=replace(UNCACHED.pipeline, steps=9)))
    slowed = ratio(by_turns(MANY, MANY_S), elsewhere)
    assert slowed.estimate == pytest.approx(MANY_S / (FEW_S * SLOWER), rel=0.02), "they took turns with others"


def test_too_few_rounds_have_no_interval() -> None:
    few, many = complete(FEW, n_rounds=3), complete(MANY, n_rounds=3)
    assert time_ratio(many, few, one_process=True) is None


def test_host_memory_of_one_process_is_no_difference_of_settings() -> None:
    """It only grows: whoever comes later has more."""
    cold = Cold(load_s=None, first_latency_s=None, launched_for=FEW.trial_id)
    memory = (Memory(host_peak_rss_bytes=size) for size in (10**9, 2 * 10**9))
    few, many = (
        with_memory(by_turns(of, s), m) for (of, s), m in zip(((FEW, FEW_S), (MANY, MANY_S)), memory, strict=True)
    )
    assert [pair.memory_bytes for pair in knob_pairs(view_of([few, many]))] == [10**9]
    assert many.measurement is not None
    served = replace(many, measurement=replace(many.measurement, cold=cold))
    assert [pair.memory_bytes for pair in knob_pairs(view_of([few, served]))] == [None]


def with_memory(record: Record, memory: Memory) -> Record:
    return replace(record, measurement=with_window(record.measurement, memory=memory))
