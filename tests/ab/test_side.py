"""One side's worker, asked in this process."""

from pathlib import Path

import pytest
from commands import TESTS
from factories import trial

from zbench.ab.side import Side, SideWorker
from zbench.config import EngineConfig


def test_progress_of_loading_does_not_disturb_a_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "engines"))
    options = {"load_s": 0.6, "load_bytes": 1000}
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options=options)
    worker = SideWorker(Side("a", trial(engine=engine)), tmp_path / "worker.log", timeout_s=60)
    try:
        worker.prepare()
        assert worker.generate(0).latency_s > 0
    finally:
        worker.close()
