"""Any record that zbench can make is written and read back as the same."""

from dataclasses import replace
from typing import Any

from damage import SCALE
from factories import complete, failed, projected, pruned, trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zbench.config import DBCacheConfig, OffloadConfig, PipelineConfig, Prompt, SCMConfig, WorkloadConfig
from zbench.measurement import Effective, Memory, Telemetry
from zbench.record import Reason, Record

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
SECONDS = st.floats(0.001, 1e6)
SIZE = st.none() | st.integers(0, 2**62)
WORD = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


@st.composite
def trials(draw: st.DrawFn) -> Any:
    side = draw(st.integers(1, 128)) * 16
    pipeline = PipelineConfig(
        name=draw(WORD), preset="zimage_tiny", weights=draw(WORD), height=side, width=16, steps=draw(st.integers(1, 60))
    )
    ids = draw(st.lists(WORD, min_size=1, max_size=3, unique=True))
    prompts = [Prompt(id=i, text=draw(TEXT)) for i in ids]
    seeds = draw(st.lists(st.integers(0, 2**62), min_size=1, max_size=2, unique=True))
    cache = draw(
        st.builds(
            DBCacheConfig,
            Fn_compute_blocks=st.integers(1, 30),
            max_warmup_steps=st.integers(0, 50),
            residual_diff_threshold=st.floats(0, 10),
            enable_taylorseer=st.booleans(),
        )
        | st.builds(SCMConfig, scm_preset=st.sampled_from(["slow", "ultra"]))
        | st.none()
    )
    offload = OffloadConfig(mode=draw(st.sampled_from(["none", "dit", "all"])))
    workload = WorkloadConfig(name=draw(WORD), prompts=prompts, seeds=seeds)
    return trial(cache, pipeline=pipeline, offload=offload, workload=workload)


@st.composite
def records(draw: st.DrawFn) -> Record:
    of = draw(trials())
    kind = draw(st.sampled_from(["complete", "failed", "pruned", "projected"]))
    if kind == "failed":
        reason = draw(st.builds(Reason, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple), st.none() | TEXT))
        return replace(failed(of), reason=reason, label=draw(TEXT))
    if kind == "pruned":
        return pruned(of, draw(TEXT))
    record = complete(
        of,
        latency_s=draw(SECONDS),
        n_rounds=draw(st.integers(1, 4)),
        cached=draw(st.sampled_from([(), (0,), (1, 3)])),
        ssim=draw(st.none() | st.floats(-1, 1)),
        memory=draw(st.builds(Memory, SIZE, SIZE, SIZE, SIZE)),
        telemetry=Telemetry(throttled=draw(st.none() | st.dictionaries(TEXT, st.floats(0, 1), max_size=2))),
        effective=draw(st.builds(Effective, other=st.dictionaries(TEXT, st.none() | st.booleans() | TEXT, max_size=2))),
        validity=draw(st.lists(TEXT, max_size=2)),
    )
    if kind == "projected":
        record = projected(record, latency_s=draw(SECONDS), vram_gib=draw(st.floats(0, 1000)))
    return replace(record, command=draw(st.none() | TEXT))


@settings(max_examples=int(60 * SCALE), derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(records())
def test_a_record_is_read_back_as_it_was_written(record: Record) -> None:
    line = record.to_json()
    assert "\n" not in line
    back = Record.from_json(line)
    assert back.to_json() == line
    assert back.trial == record.trial and back.trial.trial_id == record.trial.trial_id
    assert (back.state, back.reason, back.label) == (record.state, record.reason, record.label)
    assert back.measurement == record.measurement
