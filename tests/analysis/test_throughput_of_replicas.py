"""Images side by side count as images a second, measured and projected, and change no latency."""

from dataclasses import replace

import pytest
from factories import TURBO, measurement, trial
from hardware_profiles import profile

from zbench.analysis.metrics import REGISTRY
from zbench.config import ParallelConfig
from zbench.measurement import Measurement
from zbench.sweeper.measured import projected
from zbench.trial import Trial


def images_per_s(made: Measurement) -> float:
    read = REGISTRY["throughput"].read(made)
    assert read is not None
    return read


def with_images(of: Trial, made: Measurement) -> Measurement:
    requests = [replace(r, images=of.images) for r in made.requests]
    return replace(made, window=replace(made.window, requests=requests))


def test_a_call_makes_the_images_of_all_replicas() -> None:
    assert trial(parallel=ParallelConfig(dp_size=4, tp_size=2)).images == 4
    twice = replace(TURBO, images_per_prompt=2, batch_size=3)
    assert trial(pipeline=twice, parallel=ParallelConfig(dp_size=4)).images == 24
    assert trial(parallel=ParallelConfig(gather_size=4, cfg_size=2)).images == 1


def test_two_replicas_make_twice_the_images_a_second() -> None:
    one, two = trial(), trial(parallel=ParallelConfig(dp_size=2))
    alone, both = with_images(one, measurement(one)), with_images(two, measurement(two))
    assert images_per_s(both) == pytest.approx(2 * images_per_s(alone))
    assert REGISTRY["latency.median"].read(both) == REGISTRY["latency.median"].read(alone)


def test_projected_replicas_do_too() -> None:
    groups = {"pipeline": TURBO, "hardware": profile("h100")}
    alone, four = (
        projected(of, measurement(trial()))
        for of in (trial(**groups), trial(**groups, parallel=ParallelConfig(dp_size=4)))
    )
    assert images_per_s(four) == pytest.approx(4 * images_per_s(alone))
