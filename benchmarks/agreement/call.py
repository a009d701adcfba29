"""The call that is timed twice at once: by zbench from within, by another tool from without."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zbench.ab.side import present_trial
from zbench.executors.client import LEAVES_NO_GAPS
from zbench.sweeper.here import one_job
from zbench.workload import pairs

for variable, setting in LEAVES_NO_GAPS.items():  # as in a worker, and before torch is imported
    os.environ.setdefault(variable, setting)

from zbench.engines.reference.calls import call_arguments  # noqa: E402
from zbench.engines.reference.pipeline import ReferencePipeline  # noqa: E402

TINY_ON_CPU = ("pipeline=zimage_tiny", "hardware=cpu", "workload=single")


class Call:
    """One image, on this machine; `latencies_s` is what zbench's engine said of each call."""

    def __init__(self, overrides: Sequence[str] = TINY_ON_CPU) -> None:
        """`overrides` are zbench's, and what they do not choose is its default."""
        self.trial = present_trial("agreement", one_job(list(overrides), None), overrides)
        self.engine = ReferencePipeline()
        self.engine.launch(self.trial)
        self.engine.configure(self.trial)
        self.pair = pairs(self.trial.workload)[0]
        self.latencies_s: list[float] = []

    def __call__(self) -> None:
        """With zbench's timers on."""
        self.latencies_s.append(self.engine.generate(self.pair.prompt_text, self.pair.seed).latency_s)

    def arguments(self) -> dict[str, Any]:
        """What diffusers' pipeline is called with."""
        return call_arguments(self.trial.pipeline, self.pair.prompt_text, self.pair.seed)

    def bare(self) -> Any:
        """By diffusers alone; the engine must be `unwatched`."""
        return self.engine.pipe(**self.arguments()).images[0]

    def write(self, path: Path) -> None:
        """Keep what zbench said."""
        path.write_text(json.dumps(self.latencies_s), encoding="utf-8")


def chosen(defaults: Sequence[str], given: Sequence[str]) -> list[str]:
    """The overrides given, and the defaults whose keys they leave alone."""
    keys = {override.partition("=")[0] for override in given}
    return [default for default in defaults if default.partition("=")[0] not in keys] + list(given)
