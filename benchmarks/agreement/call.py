"""The call that is timed twice at once: by zbench from within, by another tool from without."""

import json
from pathlib import Path
from typing import Any

from zbench.ab.side import present_trial
from zbench.config import CacheConfig
from zbench.engines.reference import ReferenceEngine, call_arguments
from zbench.hydra_app import one_job
from zbench.workload import pairs


class Call:
    """One image by the tiny pipeline, on this machine; `latencies_s` is what zbench's engine said of each call."""

    def __init__(self) -> None:
        self.trial = present_trial(
            "agreement", one_job(["pipeline=zimage_tiny", "hardware=cpu", "workload=single"], None), []
        )
        self.engine = ReferenceEngine()
        self.engine.load(self.trial)
        self.engine.configure(CacheConfig())
        self.pair = pairs(self.trial.workload)[0]
        self.latencies_s: list[float] = []

    def __call__(self) -> None:
        """With zbench's timers on."""
        self.latencies_s.append(self.engine.generate(self.pair.prompt_text, self.pair.seed).latency_s)

    def bare(self) -> Any:
        """By diffusers alone; the engine must be `unwatched`."""
        arguments = call_arguments(self.trial.pipeline, self.pair.prompt_text, self.pair.seed)
        return self.engine.pipe(**arguments).images[0]

    def write(self, path: Path) -> None:
        """Keep what zbench said."""
        path.write_text(json.dumps(self.latencies_s), encoding="utf-8")
