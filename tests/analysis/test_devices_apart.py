"""A cluster may have several kinds of devices: times of one say nothing of another, and tables hold them apart."""

from dataclasses import replace
from typing import Any

from factories import ENVIRONMENT, complete, demo_projection, measurement, trial, with_window

from zbench.analysis.figures import OTHER_DEVICE
from zbench.analysis.view import view_of
from zbench.config import CacheConfig, DBCacheConfig, ParallelConfig
from zbench.environment import comparable, device_of
from zbench.recommend import Limits, Recommendation, recommend
from zbench.record import Record
from zbench.report.tables.main import main_table


def on(node: str, *names: str) -> dict[str, Any]:
    devices = [{"name": name, "memory_bytes": 2**30, "driver": "1"} for name in names]
    return {**ENVIRONMENT, "node": node, "devices": devices}


def test_a_kind_of_device_is_the_same_however_many_a_worker_sees() -> None:
    one, two, other = on("a", "H100"), on("b", "H100", "H100"), on("c", "A100")
    assert [device_of(each) for each in (one, two, other)] == ["H100", "H100", "A100"]
    assert comparable(one, two) and not comparable(one, other)
    assert device_of(ENVIRONMENT) == "Example CPU @ 2.0 GHz, 2 cores"


def sweep_on(*environments: dict[str, Any]) -> list[Record]:
    """A reference and a setting for each further environment, each measured there."""
    first, *others = environments
    settings = [trial(DBCacheConfig(residual_diff_threshold=0.1 * (i + 1))) for i in range(len(others))]
    records = [complete(trial(CacheConfig()), latency_s=1.0)]
    records += [complete(each, latency_s=0.5, ssim=0.9) for each in settings]
    return [replace(r, environment=e) for r, e in zip(records, (first, *others), strict=True)]


def test_no_speed_up_is_over_what_was_measured_on_another_kind_of_device() -> None:
    records = sweep_on(on("a", "H100"), on("b", "H100"), on("c", "A100"))
    baseline, same, other = view_of(records).trials
    assert baseline.is_baseline and (same.device, other.device) == ("H100", "A100")
    assert same.speedup is not None and same.speedup_way == "unpaired"
    assert other.speedup is None and other.why_missing("speedup") == OTHER_DEVICE
    assert other.latency_median_s is not None, "its own figures stay"


def test_tables_hold_kinds_of_devices_apart_and_say_what_speed_ups_are_over() -> None:
    records = sweep_on(on("a", "H100"), on("b", "A100"), on("c", "H100"), on("d", "A100"))
    table = main_table(view_of(records))
    assert [row[table.headers.index("device")] for row in table.rows] == ["H100", "H100", "A100", "A100"]
    (machines,) = [line for line in table.legend if "another machine of the same kind" in line]
    (none,) = [line for line in table.legend if "another kind of device" in line]
    assert machines.startswith("F1B0") and none.count("F1B0") == 2
    alike = main_table(view_of(sweep_on(on("a", "H100"), on("a", "H100"))))
    assert "device" not in alike.headers and not [line for line in alike.legend if "another machine" in line]


def test_each_kind_of_device_has_a_recommendation_of_its_own() -> None:
    """On the A100 all is slower, but its best is no worse an answer for whoever has an A100."""
    baseline, *settings = sweep_on(on("a", "H100"), on("b", "A100"), on("c", "H100"), on("d", "A100"))
    measured = [
        complete(setting.trial, latency_s=latency_s, ssim=0.9, cached=(4, 5, 6, 7))
        for setting, latency_s in zip(settings, (0.8, 0.6, 0.9), strict=True)
    ]
    records = [replace(r, environment=s.environment) for r, s in zip(measured, settings, strict=True)]
    answers = recommend(view_of([baseline, *records]), Limits()).answers
    assert [each.work.partition(", measured on ")[2] for each in answers] == ["H100", "A100"]
    best = [each.trial.trial_id for each in answers if isinstance(each, Recommendation)]
    assert best == [records[1].trial_id, records[0].trial_id]


def test_what_is_projected_was_measured_on_no_device_of_its_own() -> None:
    """A proxy runs wherever there is room; what it is projected onto is the same everywhere."""
    records = [replace(r, environment=on(str(i), f"GPU {i}")) for i, r in enumerate(demo_projection())]
    rows = view_of(records).trials
    assert all(row.device is None and row.speedup is not None for row in rows)


def test_one_device_and_two_of_its_kind_are_comparable_in_a_record_of_each() -> None:
    """Ray shows a worker the GPUs that its trial needs, and no others."""
    one = replace(complete(trial(), latency_s=1.0), environment=on("a", "H100"))
    two = replace(
        complete(trial(parallel=ParallelConfig(ulysses_size=2)), latency_s=0.6, ssim=None),
        environment=on("b", "H100", "H100"),
    )
    sharded = next(row for row in view_of([one, two]).trials if row.devices == 2)
    assert sharded.one_device_speedup is not None and round(sharded.one_device_speedup, 2) == 1.67


def test_turns_were_taken_on_one_machine_so_what_is_paired_stays() -> None:
    """The baseline's own record is of another kind of device; its turns beside the setting were on the setting's."""
    baseline, setting = sweep_on(on("a", "H100"), on("b", "A100"))
    turns = measurement(trial(CacheConfig()), latency_s=2.0).requests
    assert setting.measurement is not None
    ours = setting.measurement.requests
    taken = [each for pair in zip(turns, ours, strict=True) for each in pair]
    requests = [replace(each, index=index) for index, each in enumerate(taken)]
    paired = replace(setting, measurement=with_window(setting.measurement, requests=requests))
    row = next(row for row in view_of([baseline, paired]).trials if not row.is_baseline)
    assert (row.speedup_way, round(row.speedup or 0, 1)) == ("paired", 4.0), "2.0 s over 0.5 s, and not 1.0 over 0.5"
