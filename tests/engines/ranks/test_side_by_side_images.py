"""Data parallel on the real tiny pipeline: each replica makes images of its own seeds, and nothing is sharded."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from commands import zbench
from factories import TINY, trial

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import ParallelConfig
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.engines.reference.ranks import RankWorld
from zbench.methods.parallel import ParallelDims
from zbench.store import read_records

SMALL = replace(TINY, height=128, width=128, steps=2, images_per_prompt=2)
PROMPT = "a large red circle on a white background"


def test_the_images_of_a_replica_follow_those_of_the_one_before(tmp_path: Path) -> None:
    beats: list[str] = []
    of = trial(pipeline=SMALL, parallel=ParallelConfig(dp_size=2))
    second = ReferencePipeline(RankWorld(1, ParallelDims(dp=2), tmp_path), beats.append)
    second.launch(of)
    second.configure(of)
    theirs = second.generate(PROMPT, 5)
    assert theirs.images == 2 and second.span_s[1] - second.span_s[0] == theirs.latency_s
    assert beats == ["text_encode"] * 2 + ["step"] * 4 + ["decode"] * 2
    second.close()
    alone = ReferencePipeline()
    alone.launch(trial(pipeline=SMALL))
    alone.configure(trial(pipeline=SMALL))
    assert np.array_equal(theirs.image, alone.generate(PROMPT, 7).image)
    alone.close()


def test_a_run_of_two_replicas_end_to_end(tmp_path: Path) -> None:
    done = zbench(
        tmp_path,
        *("run", "hardware=cpu", "pipeline=zimage_tiny", "parallel.dp_size=2", "pipeline.height=128"),
        *("pipeline.width=128", "pipeline.steps=2", "workload=single", "measure=quick", "measure.min_rounds=2"),
        *("measure.max_rounds=2", "measure.max_warmup_rounds=1", "measure.budget_s=0.1", "sweep.name=run"),
    )
    assert done.returncode == 0, done.stderr
    records = read_records(tmp_path / "runs" / "run" / "records.jsonl")
    (found,) = [record for record in records if record.trial.parallel.dp_size == 2]
    assert found.measurement is not None and found.measurement.quality is not None
    assert all(each.identical for each in found.measurement.quality), "the first image is the one of its seed"
    for request in found.measurement.requests:
        assert request.images == 2 and [view.rank for view in request.ranks] == [0, 1]
