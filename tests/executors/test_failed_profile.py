"""A profile comes after the window: whatever it does, what was measured is kept, and the next trial is well."""

import os
from pathlib import Path

import pytest
from factories import trial

from zbench.config import EngineConfig, ExecutorConfig, MeasureConfig, ParallelConfig
from zbench.executors import Completed, Setting, Task
from zbench.executors import local as local_executor
from zbench.executors.local import LocalExecutor

ENGINES = Path(__file__).parent.parent / "engines"
LOCAL = ExecutorConfig(name="local", target="zbench.executors.local:LocalExecutor")
MEASURE = MeasureConfig(max_warmup_rounds=1, min_rounds=2, max_rounds=2, timeout_s=60.0)


@pytest.mark.parametrize("misdeed", ["raise", "die", "hang"])
def test_what_was_measured_is_kept(misdeed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ENGINES), os.environ.get("PYTHONPATH")])))
    monkeypatch.setattr(local_executor, "PROFILE_S", 1.0)
    engine = EngineConfig(name="profiled", target="profiled:ProfiledEngine", options={"misdeed": misdeed})
    of = trial(engine=engine, parallel=ParallelConfig(gather_size=2))
    with LocalExecutor(LOCAL, tmp_path / "logs", allow_code=True) as executor:
        for folder in ("first", "second"):
            setting = Setting(of, tmp_path / folder, None, False)
            executor.submit(Task((setting,), MEASURE, of.engine.name))
            (result,) = executor.next_done(lambda task, event: None, lambda: False).results
            assert isinstance(result, Completed), result
            assert len(result.measurement.requests) == 2 and result.measurement.communication == []
            assert result.measurement.reasons["communication"] == "profile_failed"
