"""Degrees, devices and ranks travel in the formats that have room for them."""

import csv
import io

import pytest
from several_devices import data_parallel, one_device, two_devices

from zbench.analysis.view import view_of
from zbench.export import FORMATS
from zbench.export.parquet import round_frames

VIEW = view_of([one_device(), two_devices(), data_parallel()])


def rows(form: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(FORMATS[form](VIEW)))))


def test_csv_has_devices_degrees_and_what_they_bought():
    one, two, dp = rows("csv")
    assert [row["devices"] for row in (one, two, dp)] == ["1", "2", "2"]
    assert (two["ulysses_size"], two["dp_size"], dp["dp_size"], one["tp_size"]) == ("2", "1", "2", "1")
    assert float(two["one_device_speedup"]) == pytest.approx(1 / 0.6)
    assert float(two["parallel_efficiency"]) == pytest.approx(1 / 1.2)
    assert float(two["exposed_communication"]) == pytest.approx(0.06)
    assert (one["parallel_efficiency"], one["exposed_communication"], one["rank_memory_bytes"]) == ("", "", "")


def test_rounds_have_the_time_of_each_rank():
    by_label = {row["label"]: row["rank_latencies_s"] for row in rows("csv-rounds")}
    assert by_label == {"none": "", "none u2": "0.6 0.59", "none dp2": "1.02 1.01"}


def test_parquet_has_the_degrees_too():
    (frame,) = round_frames(VIEW)
    assert set(frame["trial_devices"]) == {1, 2} and set(frame["parallel.ulysses_size"]) == {1, 2}
    assert frame["rank_latencies_s"].isna().sum() == 8
