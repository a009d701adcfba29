"""What SGLang says of one request in the file of its `perf_dump_path`: stages, steps, and which of them it skipped.

The file is SGLang's `PerformanceLogger.dump_benchmark_report` (0.5.12 to 0.5.23): `steps` are stages by name,
`denoise_steps_ms` the transformer's forwards. With SGLANG_DIFFUSION_SYNC_STAGE_PROFILING=1 both wait for the GPU. It
says nothing of skipped steps; those are told by their time.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zbench.stats import median

STAGES = {"TextEncoding": "text_encode", "Denois": "denoise", "Decod": "decode"}
"""What a stage's name holds, and what zbench calls it."""

WRITTEN_S = 3.0
"""How long the file may come after the answer."""

SIZE_LIMIT = 2**22


@dataclass(frozen=True)
class PerfDump:
    """Times in seconds."""

    stages_s: dict[str, float]
    steps_s: list[float]


def read_dump(path: Path) -> PerfDump | None:
    """What the file says, waited for a moment; None where there is none, or it is none."""
    until = time.monotonic() + WRITTEN_S
    while not path.is_file():
        if time.monotonic() > until:
            return None
        time.sleep(0.02)
    try:
        if path.stat().st_size > SIZE_LIMIT:
            return None
        said = json.loads(path.read_text(encoding="utf-8"))
        steps_s = [_seconds(step) for step in said["denoise_steps_ms"]]
        stages_s: dict[str, float] = {}
        for stage in said["steps"]:
            name = next((ours for part, ours in STAGES.items() if part in str(stage["name"])), None)
            if name is not None:
                stages_s[name] = stages_s.get(name, 0.0) + _seconds(stage)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return PerfDump(stages_s, steps_s)


def cached_steps(steps_s: list[float], share: float, certain: int) -> list[int]:
    """Indices of the steps that were skipped, where a skipped one takes about `share` of a computed one's time.

    The first `certain` are known to be computed. The very first may take longer than others do, so it counts alone
    where no other is known.
    """
    computed = median(steps_s[1:certain] or steps_s[:1]) if steps_s else 0.0
    return [step for step, step_s in enumerate(steps_s) if step >= certain and step_s < computed * (1 + share) / 2]


def _seconds(entry: dict[str, Any]) -> float:
    seconds = float(entry["duration_ms"]) / 1000
    if not 0 <= seconds < 1e6:
        raise ValueError(seconds)
    return seconds
