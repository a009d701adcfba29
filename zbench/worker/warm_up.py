"""Rounds before the timed ones, until latencies have settled; nothing of them is a result.

All are of the workload's first pair, so that only time can change them. Where the pipeline is compiled, every other
prompt is painted once before, because a caption of another length may be compiled anew.
"""

import time
from dataclasses import dataclass

from zbench.engines import Engine
from zbench.stats.stationary import LEAST, is_stationary
from zbench.worker.job import Job
from zbench.workload import Pair


@dataclass(frozen=True)
class WarmUp:
    """Latencies in seconds, in time order, and why there are no more."""

    latencies_s: list[float]
    end: str  # settled, max_rounds or budget

    def suspicions(self) -> list[str]:
        """Why what follows should not be trusted; fewer rounds than can settle were someone's choice."""
        if self.end != "max_rounds" or len(self.latencies_s) < LEAST:
            return []
        return [f"latencies had not settled after {len(self.latencies_s)} warm-up rounds"]


def warm_up(engine: Engine, job: Job, cycle: list[Pair]) -> WarmUp:
    """At most `measure.max_warmup_rounds`, and none is begun once they took `measure.budget_s`."""
    job.stage = "warm-up rounds"
    first = cycle[0]
    others = {pair.prompt_text: pair for pair in cycle if pair.prompt_text != first.prompt_text}
    to_compile = list(others.values()) if job.trial.compute.compile else []
    most = job.measure.max_warmup_rounds
    latencies: list[float] = []
    began = time.monotonic()
    end = "max_rounds"
    for index in range(len(to_compile) + most if most else 0):
        if index and time.monotonic() - began >= job.measure.budget_s:
            end = "budget"
            break
        job.check_stop()
        pair = to_compile[index] if index < len(to_compile) else first
        latencies.append(engine.generate(pair.prompt_text, pair.seed).latency_s)
        job.tell_round("warmup", index, latencies[-1], min(LEAST, most), len(to_compile) + most)
        alike = latencies[len(to_compile) :]
        if is_stationary(alike).settled:
            end = "settled"
            break
    return WarmUp(latencies, end)
