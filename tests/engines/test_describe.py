"""What is known of an engine before its stack is imported, and of one from elsewhere before its code is."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
from factories import TINY, TURBO, trial

from zbench import plugins
from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    EngineConfig,
    HardwareConfig,
    ParallelConfig,
)
from zbench.engines import Descriptions, describe, residency_by_keys
from zbench.errors import ConfigError

GPU = HardwareConfig(name="b300", title="B300", datasheet="none")
SYNTHETIC = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options={"refuse": "engine=no: never"})
NOT_HERE = EngineConfig(name="x", target="no_such_module:Engine")


def test_target_that_is_no_engine_is_named() -> None:
    with pytest.raises(ConfigError, match=r"engine\.target=zbench\.engines:Nope"):
        describe(EngineConfig(name="x", target="zbench.engines:Nope"))
    with pytest.raises(ConfigError, match=r"engine\.options"):
        describe(EngineConfig(name="x", target="zbench.engines.reference:ReferenceEngine", options={"nope": 1}))


def test_keys_of_requests_are_taken_out_of_the_process() -> None:
    one = trial(DBCacheConfig())
    shared = residency_by_keys(one, ("cache", "pipeline.steps"))
    assert json.loads(shared.request) == {"cache": one.to_dict()["cache"], "pipeline.steps": 8}
    process = json.loads(shared.process)
    assert "cache" not in process and "steps" not in process["pipeline"] and process["engine"]["name"] == "reference"
    assert (
        residency_by_keys(trial(CacheConfig(), pipeline=replace(TINY, steps=9)), ("cache", "pipeline.steps")) != shared
    )
    assert "steps" in one.to_dict()["pipeline"], "the trial stays what it is"


def test_an_engine_is_asked_for_what_is_measured_and_not_for_what_is_projected() -> None:
    engines = Descriptions()
    assert engines.supports(trial(engine=SYNTHETIC)) == "engine=no: never"
    projected = trial(engine=NOT_HERE, pipeline=TURBO, parallel=ParallelConfig(tp_size=2), hardware=GPU)
    assert engines.supports(projected) is None
    assert engines.process(projected) == engines.process(replace(projected, cache=DBCacheConfig()))
    assert engines.process(projected) != engines.process(replace(projected, compute=ComputeConfig(compile=True)))


def test_without_code_from_outside_such_an_engine_is_not_even_imported() -> None:
    engines, foreign = Descriptions(outside=False, allow_code=True), trial(engine=NOT_HERE)
    assert engines.supports(foreign) is None
    assert engines.process(foreign) == engines.process(replace(foreign, cache=DBCacheConfig()))
    assert engines.process(foreign) != engines.process(replace(foreign, pipeline=replace(TINY, steps=9)))
    sharded = trial(parallel=ParallelConfig(ulysses_size=8))
    assert "cache-dit" in (engines.supports(sharded) or ""), "zbench's own is asked"
    with pytest.raises(ConfigError, match="no_such_module"):
        Descriptions(allow_code=True).supports(foreign)


def test_the_metadata_of_packages_is_read_once_for_all_trials_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of every installed package, and a sweep may have ten thousand trials."""
    looked: list[str] = []

    def installed(kind: plugins.Kind) -> list[EntryPoint]:
        looked.append(kind)
        return []

    monkeypatch.setattr(plugins, "installed", installed)
    engines, one = Descriptions(allow_code=True), trial(engine=SYNTHETIC)
    engines.process(one)
    before = len(looked)
    assert before > 0
    for threshold in (0.1, 0.2, 0.3):
        engines.process(replace(one, cache=DBCacheConfig(residual_diff_threshold=threshold)))
        engines.supports(one)
    assert len(looked) == before


def test_describing_imports_no_torch() -> None:
    code = """
import sys
from factories import trial
from zbench.engines.reference import ReferenceEngine
engine = ReferenceEngine()
assert engine.supports(trial()) is None and engine.residency(trial()).process
sys.exit("torch" in sys.modules or "diffusers" in sys.modules or "cache_dit" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=with_tests(), check=False)
    assert done.returncode == 0, done.stderr


def with_tests() -> dict[str, str]:
    import os
    from pathlib import Path

    tests = Path(__file__).parents[1]
    path = [str(tests), str(tests.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
