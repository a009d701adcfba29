"""Plans for tests of the sweep itself: of a space, without composing anything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from factories import GRID

from zbench.config import ExecutorConfig, MeasureConfig, SweepConfig
from zbench.space import Space
from zbench.sweeper.plan import Plan


def plan_of(space: Space, runs: Path, **changes: Any) -> Plan:
    """A grid over `space`, kept in the folder `s` of `runs`; keywords are fields of Plan, `sweep` apart."""
    made = Plan(
        name="s",
        command="zbench sweep",
        space=space,
        preview=space,
        search=GRID,
        allow_code=False,
        measure=MeasureConfig(),
        sweep=SweepConfig(runs_dir=str(runs), **changes.pop("sweep", {})),
        executor=ExecutorConfig(name="local"),
        profiles={},
        stand_in=None,
    )
    return replace(made, **changes)
