"""Rounds before the timed ones, until latencies have settled; nothing of them is a result.

All are of the workload's first pair, so that only time can change them. Where the pipeline is compiled or captured,
every other prompt is painted once before, because a caption of another length may be compiled or captured anew.
"""

import time
from dataclasses import dataclass, field

from zbench.engines import Engine, Generation
from zbench.measurement import SpoiltWarmUp
from zbench.methods import fast, graphs
from zbench.stats.stationary import LEAST, is_stationary
from zbench.trial import Trial
from zbench.worker.calls import Calls
from zbench.worker.job import TrialJob
from zbench.worker.request import image_sha256, spoilt_by
from zbench.workload import Pair


@dataclass(frozen=True)
class WarmUp:
    """Latencies in seconds, in time order, and why there are no more."""

    latencies_s: list[float]
    end: str  # settled, max_rounds or budget; left_out where the workload wants none
    most: int  # rounds that `measure` allowed
    spoilt: list[SpoiltWarmUp] = field(default_factory=list)
    compile_s: float | None = None  # of all of them; None where nobody says, or none was made
    compiled_calls: int = 0
    image_sha256: str | None = None  # of the workload's first pair, by the last round; None where none was made

    def suspicions(self) -> list[str]:
        """Why what follows should not be trusted; fewer rounds than can settle were someone's choice."""
        if self.end == "settled" or self.most < LEAST:
            return []
        limit = f"measure.{'budget_s' if self.end == 'budget' else 'max_warmup_rounds'}"
        return [f"latencies had not settled after {len(self.latencies_s)} warm-up rounds, where {limit} ends them"]


NOT_WARMED_UP = WarmUp([], "left_out", 0)
"""Of a load that is to begin with whatever the pipeline is (`workload.warm_up=false`)."""


def to_compile(trial: Trial, cycle: list[Pair]) -> list[Pair]:
    """A pair of each prompt but the first, where painting it may make code or a graph; one of each size of its own."""
    first = cycle[0]
    others = {pair.prompt_text: pair for pair in cycle if pair.prompt_text != first.prompt_text}
    sizes = {tuple(pair.own.items()): pair for pair in cycle if pair.own != first.own}
    made_for_one = fast.compiled(trial.compute) or trial.graphs != graphs.NONE
    return list(others.values()) if made_for_one else list(sizes.values())


def warm_up(engine: Engine, job: TrialJob, cycle: list[Pair], calls: Calls | None = None) -> WarmUp:
    """At most `measure.max_warmup_rounds` of one pair; `measure.budget_s` may end them once they could have settled.

    A round that compiled or captured is not alike: budget and series begin anew after it.
    """
    calls = calls or Calls(engine)
    most, budget_s = job.measure.max_warmup_rounds, job.measure.budget_s
    compiling = to_compile(job.trial, cycle) if most else []
    latencies: list[float] = []
    spoilt: list[SpoiltWarmUp] = []
    compiling_s: list[float | None] = []
    compiled: list[bool] = []
    last: list[Generation] = []  # of the first pair

    def one(pair: Pair) -> Generation:
        job.check_stop()
        made = calls.make(job.trial, pair)
        latencies.append(made.latency_s)
        compiling_s.append(made.compile_s)
        compiled.append(made.compiled)
        if faults := spoilt_by(made):
            spoilt.append(SpoiltWarmUp(pair.prompt_id, pair.seed, faults))
        job.tell_round("warmup", len(latencies) - 1, latencies[-1], len(compiling) + min(LEAST, most), total)
        return made

    def ended(end: str) -> WarmUp:
        known_s = [seconds for seconds in compiling_s if seconds is not None]
        told = bool(known_s) and len(known_s) == len(compiling_s)
        shown = image_sha256(last[0]) if last else None
        return WarmUp(latencies, end, most, spoilt, sum(known_s) if told else None, sum(compiled), shown)

    total = len(compiling) + most
    for pair in compiling:
        one(pair)
    began, first = time.monotonic(), len(compiling)
    while len(latencies) < total:
        last[:] = [one(cycle[0])]
        if last[0].compiled:
            began, first = time.monotonic(), len(latencies)
        alike = latencies[first:]
        if is_stationary(alike).settled:
            return ended("settled")
        if len(alike) >= LEAST and time.monotonic() - began >= budget_s:
            return ended("budget")
    return ended("max_rounds")
