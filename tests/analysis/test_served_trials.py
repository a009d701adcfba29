"""What records of a server's trials say, and what they cannot say."""

from dataclasses import replace
from typing import Any

import pytest
from factories import complete, trial, with_window

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import view_of
from zbench.config import CacheConfig, DBCacheConfig
from zbench.export.rounds import round_rows
from zbench.measurement import Effective, ImageQuality, Memory
from zbench.record import Record
from zbench.report.text.setting import environment_lines

CACHED = DBCacheConfig()
SAYS_NOTHING = Effective(tells_cached_steps=False, other={"server": "http://127.0.0.1:30000", "models": ["z"]})
NOISE = [ImageQuality(i, 0, False, 40.0, 0.99, None) for i in ("en-circle", "zh-square")]


def served(cache: CacheConfig | None = None, effective: Effective = SAYS_NOTHING, **of: Any) -> Record:
    return complete(trial(cache), effective=effective, **of)


def hashed(record: Record, salt: str) -> Record:
    measured = record.measurement
    assert measured is not None
    requests = [replace(r, image_sha256=f"{salt} {r.prompt_id} {r.seed}") for r in measured.requests]
    return replace(record, measurement=with_window(measured, requests=requests))


def unjudged(record: Record) -> Record:
    assert record.measurement is not None
    return replace(record, measurement=replace(record.measurement, quality=None))


def row_of(record: Record, *others: Record) -> TrialFigures:
    return next(row for row in view_of([*others, record]).trials if row.trial_id == record.trial_id)


def test_images_of_random_weights_tell_too_that_a_cache_was_ignored() -> None:
    """Nobody judges them, yet equal bytes are equal work."""
    base = hashed(served(), "one")
    [said] = row_of(unjudged(hashed(served(CACHED), "one")), base).caveats
    assert said.startswith("the server was asked for F1B0_W4_MC3_R0.24, and its images are the uncached ones to the")
    assert row_of(unjudged(hashed(served(CACHED, latency_s=0.7), "two")), base).caveats == ()


@pytest.mark.parametrize(("latency_s", "doubted"), [(1.0, True), (0.99, True), (0.7, False)])
def test_images_within_noise_and_no_speed_up_tell_it_where_a_server_makes_no_image_twice(
    latency_s: float, doubted: bool
) -> None:
    base = hashed(served(noise_floor=NOISE, latency_s=1.0, spread=0.0), "one")
    cached = hashed(served(CACHED, ssim=0.995, psnr_db=45.0, latency_s=latency_s, spread=0.0), "two")
    said = row_of(cached, base).caveats
    assert bool(said) == doubted and all("lie within the noise of the uncached ones" in each for each in said)


def test_images_that_differ_are_no_doubt_where_nobody_says_which_steps_were_skipped() -> None:
    """On zbench's own pipeline they would be: it says that it skipped none."""
    base = hashed(served(noise_floor=NOISE), "one")
    assert row_of(hashed(served(CACHED, ssim=0.7, psnr_db=15.0, latency_s=0.7), "two"), base).caveats == ()
    own = hashed(served(CACHED, Effective(), ssim=0.7, psnr_db=15.0, latency_s=0.7), "two")
    assert "something else changed" in row_of(own, base).caveats[0]


def test_a_server_that_tells_its_steps_is_not_doubted_for_skipping_none() -> None:
    """A threshold may never be met."""
    tells = replace(SAYS_NOTHING, tells_cached_steps=True)
    base = hashed(served(effective=tells), "one")
    assert row_of(hashed(served(CACHED, tells), "one"), base).caveats == ()


def test_what_took_effect_otherwise_is_a_doubt() -> None:
    odd = replace(SAYS_NOTHING, doubts=["asked for steps 8, the server says 9"])
    assert row_of(served(effective=odd)).caveats == ("asked for steps 8, the server says 9",)


def test_steps_that_nobody_tells_are_not_zero() -> None:
    assert row_of(served(CACHED)).cached_steps is None and row_of(complete(trial(CACHED))).cached_steps == 0
    assert {row["n_cached_steps"] for row in round_rows(served(CACHED), "x")} == {None}


def test_memory_that_only_the_server_tells_is_no_device_memory_of_ours() -> None:
    record = served()
    measured = record.measurement
    assert measured is not None
    requests = [replace(r, server_peak_bytes=10 * 2**20 + r.index) for r in measured.requests]
    told = replace(record, measurement=with_window(measured, requests=requests, memory=Memory()))
    row = row_of(told)
    assert (row.memory_kind, row.peak_memory_bytes) == ("server", 10 * 2**20 + len(requests) - 1)
    assert row.device_memory_bytes is None


def test_a_report_names_the_server() -> None:
    lines = dict(environment_lines([served()]))
    assert lines["Server"] == "http://127.0.0.1:30000, models: z; hardware and software are its client's"
    assert "Server" not in dict(environment_lines([complete(trial())]))
