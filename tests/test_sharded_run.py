"""`zbench run pipeline=zimage_turbo` with a folder of small modules in the official layout, weights in shards."""

from pathlib import Path

import pytest
from commands import zbench
from sharded import save_in_shards

from zbench.record import Record
from zbench.store import read_records
from zbench.zimage.layout import Checkpoint
from zbench.zimage.weight_files import weight_files

OVERRIDES = (
    *("hardware=cpu", "pipeline=zimage_turbo", "pipeline.height=64", "pipeline.width=64", "pipeline.steps=2"),
    *("pipeline.max_sequence_length=64", "workload=single", "measure=quick", "measure.min_rounds=2"),
    *("measure.max_rounds=2", "measure.max_warmup_rounds=1", "measure.budget_s=0.1"),
)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_in_shards(tmp_path_factory.mktemp("official") / "weights")


def run(folder: Path, weights: Path, *more: str) -> Record:
    done = zbench(folder, "run", f"pipeline.weights={weights}", "sweep.name=run", *OVERRIDES, *more)
    assert done.returncode == 0, done.stderr
    (record,) = read_records(folder / "runs" / "run" / "records.jsonl")
    return record


def test_shards_run_end_to_end_and_the_record_has_their_checksum(official: Path, tmp_path: Path) -> None:
    record = run(tmp_path, official, "pipeline.images_per_prompt=2", f"pipeline.vae={official}/vae")
    assert record.measurement is not None
    effective = record.measurement.effective
    assert effective.weights == "folder" and effective.weights_seed is None
    assert len(effective.weights_sha256) == 64 and effective.vae == f"{official}/vae"
    assert all(r.images == 2 and len(r.text_tokens) == 2 for r in record.measurement.requests)
    again = tmp_path / "again"
    again.mkdir()
    same = run(again, official)  # its own VAE is the very file given above
    assert same.measurement is not None
    assert same.measurement.effective.weights_sha256 == effective.weights_sha256


def test_a_missing_shard_is_one_line_before_anything_starts(official: Path, tmp_path: Path) -> None:
    shard = weight_files(Checkpoint(official), "transformer")[1]
    hidden = shard.rename(shard.with_suffix(".hidden"))
    try:
        done = zbench(tmp_path, "run", f"pipeline.weights={official}", *OVERRIDES)
    finally:
        hidden.rename(shard)
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    (line,) = done.stderr.strip().splitlines()
    assert str(shard) in line and "missing file" in line


def test_a_vae_that_is_not_there_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    done = zbench(tmp_path, "run", "hardware=cpu", "pipeline=zimage_tiny", "pipeline.vae=/no/such/vae")
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    assert done.stderr.strip() == "zbench: error: pipeline.vae=/no/such/vae: /no/such/vae: no such folder or file"
