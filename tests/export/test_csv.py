"""CSV holds the figures or the raw samples, and no NaN."""

import csv
import io

import pytest
from factories import complete, demo_projection, demo_records, failed, trial

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.export import FORMATS, ROUND_COLUMNS


def read(written):
    return list(csv.DictReader(io.StringIO(written)))


def text(form, records):
    return "".join(FORMATS[form](view_of(records)))


def test_csv_has_a_row_a_trial_and_the_reason_of_those_without_figures():
    rows = read(text("csv", demo_records()))
    assert len(rows) == 16
    assert rows[0]["label"] == "none" and float(rows[0]["speedup"]) == 1.0
    assert rows[-2]["reason_code"] == "out_of_memory" and rows[-2]["latency_median_s"] == ""
    assert rows[-1]["state"] == "PRUNED"


def test_csv_rounds_are_the_raw_samples():
    record = complete(trial(DBCacheConfig()), cached=(4, 6))
    rows = read(text("csv-rounds", [record]))
    assert [float(row["latency_s"]) for row in rows] == [r.latency_s for r in record.measurement.requests]
    assert rows[0]["cached_steps"] == "4 6" and rows[0]["n_cached_steps"] == "2"
    assert {row["images"] for row in rows} == {"1"}


def test_a_projected_trials_rounds_say_that_they_are_the_proxys():
    assert {row["latency_source"] for row in read(text("csv-rounds", demo_projection()))} == {"proxy"}


def test_no_rounds_still_has_a_header():
    assert text("csv-rounds", [failed(trial())]) == ",".join(ROUND_COLUMNS) + "\n"


@pytest.mark.parametrize("form", ["csv", "csv-rounds"])
def test_csv_holds_no_nan(form):
    cells = {cell for row in read(text(form, demo_records())) for cell in row.values()}
    assert not cells & {"nan", "NaN", "inf", "None"}
