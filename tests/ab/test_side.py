"""A worker of one side, asked in this process, and which sides may share one."""

from pathlib import Path

import pytest
from commands import TESTS
from factories import trial

from zbench.ab.side import Side, SideWorker, share_a_pipeline
from zbench.config import ComputeConfig, DBCacheConfig, EngineConfig, PipelineConfig


def test_progress_of_loading_does_not_disturb_a_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "engines"))
    options = {"load_s": 0.6, "load_bytes": 1000}
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options=options)
    worker = SideWorker([Side("a", trial(engine=engine))], tmp_path / "worker.log", timeout_s=60)
    try:
        worker.prepare()
        assert worker.generate("a", 0).latency_s > 0
    finally:
        worker.close()


CACHED = trial(cache=DBCacheConfig())
COMPILED = ComputeConfig(device="cpu", compile=True)


@pytest.mark.parametrize(
    ("b", "shared"),
    [
        (Side("b", trial()), True),
        (Side("b", CACHED), True),
        (Side("b", trial(pipeline=PipelineConfig(preset="zimage_tiny", steps=9))), False),
        (Side("b", CACHED, home=Path("elsewhere")), False),
        (Side("b", CACHED, python="python-of-another-venv", home=None), False),
    ],
)
def test_only_one_pipeline_of_one_code_is_shared(b: Side, shared: bool) -> None:
    assert share_a_pipeline(Side("a", trial()), b) is shared


def test_compiled_sides_are_kept_apart() -> None:
    """Going from one setting to the other might compile again."""
    assert not share_a_pipeline(Side("a", trial(compute=COMPILED)), Side("b", trial(compute=COMPILED)))
