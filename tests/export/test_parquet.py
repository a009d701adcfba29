"""Parquet: a row a round, from which the trials' figures can be had again; null, never NaN."""

import io
import sys

import pandas as pd
import pytest
from factories import complete, demo_projection, demo_records, failed, trial

from zbench.analysis.view import view_of
from zbench.cli import main
from zbench.config import DBCacheConfig
from zbench.errors import ZbenchError
from zbench.export import BINARY_FORMATS

pq = pytest.importorskip("pyarrow.parquet")


def read(records):
    return pd.read_parquet(io.BytesIO(BINARY_FORMATS["parquet"](view_of(records))))


def table(records):
    return pq.read_table(io.BytesIO(BINARY_FORMATS["parquet"](view_of(records))))


def test_a_row_a_round():
    records = demo_records()
    frame = read(records)
    rounds = [r for record in records if record.measurement for r in record.measurement.requests]
    assert sorted(frame["latency_s"]) == sorted(r.latency_s for r in rounds)
    assert not frame.duplicated(["sweep", "trial_id", "index"]).any()


def test_the_samples_are_whole():
    record = complete(trial(DBCacheConfig()), cached=(4, 6))
    first, row = record.measurement.requests[0], read([record]).iloc[0]
    assert list(row["cached_steps"]) == [4, 6] and row["n_cached_steps"] == 2
    assert list(row["steps_s"]) == first.steps_s
    assert (row["prompt_id"], row["seed"], row["valid"]) == (first.prompt_id, first.seed, True)
    assert [row["text_encode_s"], row["denoise_s"], row["decode_s"]] == list(first.stages_s.values())


@pytest.mark.parametrize("records", [demo_records(), demo_projection()], ids=["measured", "projected"])
def test_the_figures_of_every_trial_are_recoverable(records):
    trials = read(records).drop_duplicates(["sweep", "trial_id"])
    expected = [row for row in view_of(records).trials if row.state == "COMPLETE"]
    assert list(trials["label"]) == [row.label for row in expected]
    for name in ("latency_median_s", "speedup", "peak_memory_bytes", "memory_kind", "psnr_worst_db", "latency_source"):
        got = [None if pd.isna(value) else value for value in trials[f"trial_{name}"]]
        assert got == [getattr(row, name) for row in expected]


def test_the_median_can_be_taken_from_the_rows():
    frame = read(demo_records())
    medians = frame[frame["valid"]].groupby("trial_id")["latency_s"].median()
    told = frame.drop_duplicates("trial_id").set_index("trial_id")["trial_latency_median_s"]
    assert medians.to_dict() == pytest.approx(told.to_dict())


def test_config_values_that_vary_are_columns_of_their_own_type_and_the_others_are_none():
    frame = read([complete(trial(DBCacheConfig(residual_diff_threshold=t))) for t in (0.12, 0.24)])
    assert sorted(set(frame["cache.residual_diff_threshold"])) == [0.12, 0.24]
    assert [c for c in frame.columns if "." in c] == ["cache.residual_diff_threshold"]
    mixed = read(demo_records())
    assert set(mixed["cache.method"]) == {"none", "dbcache", "scm"}
    assert str(mixed["cache.max_warmup_steps"].dtype) == "Int64"


def test_a_rounds_image_brings_its_likeness():
    frame = read([complete(trial()), complete(trial(DBCacheConfig()), ssim=0.9)])
    alike = frame[~frame["trial_is_baseline"]].groupby("prompt_id")["ssim"].first()
    assert sorted(alike) == pytest.approx([0.9, 0.91])
    assert frame[frame["trial_is_baseline"]]["ssim"].isna().all()


def test_a_projected_trials_rounds_say_that_they_are_the_proxys_and_what_they_are_projected_to_take():
    records = demo_projection()
    frame = read(records)
    assert set(frame["latency_source"]) == {"proxy"} and set(frame["trial_latency_source"]) == {"projected"}
    projected = [p.latency_s for record in records for p in record.measurement.projection.rounds]
    assert sorted(frame["projected_latency_s"].dropna()) == sorted(projected)
    assert read(demo_records())["projected_latency_s"].isna().all()


@pytest.mark.parametrize("records", [demo_records(), demo_projection()], ids=["measured", "projected"])
def test_parquet_holds_null_and_no_nan(records):
    data = table(records)
    for column in data.column_names:
        assert not [v for v in data[column].to_pylist() if isinstance(v, float) and v != v], column


def test_the_columns_and_their_types_do_not_depend_on_the_values():
    one, many = table([complete(trial())]).schema, table(demo_records()).schema
    fixed = [field for field in many if "." not in field.name]
    assert [(f.name, f.type) for f in one] == [(f.name, f.type) for f in fixed]
    none = table([failed(trial())])
    assert none.num_rows == 0 and [f.name for f in none.schema] == [f.name for f in one]


def test_failed_trials_have_no_row_and_are_counted_on_stderr(capsys):
    frame = read([complete(trial()), failed(trial(DBCacheConfig()))])
    assert set(frame["label"]) == {"none"}
    assert "left out 1 trial FAILED" in capsys.readouterr().err


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ZbenchError, match="pip install 'pyarrow") as error:
        BINARY_FORMATS["parquet"](view_of([complete(trial())]))
    assert error.value.exit_code == 2


def test_the_command_line_writes_it_into_a_file_and_nowhere_else(tmp_path, capsys):
    run, out = tmp_path / "records.jsonl", tmp_path / "out.parquet"
    run.write_text(complete(trial()).to_json() + "\n", encoding="utf-8")
    assert main(["export", str(run), "--format", "parquet"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "--out FILE" in captured.err
    assert main(["export", str(run), "--format", "parquet", "--out", str(out)]) == 0
    assert len(pd.read_parquet(out)) == 8
