"""Requests that a server has to itself, untimed: what its own time leaves out of them is no queueing under load."""

from zbench.engines import FAILURES_OF_ONE_REQUEST, Concurrent
from zbench.measurement import LoneRequest
from zbench.worker.calls import Calls
from zbench.worker.job import TrialJob
from zbench.worker.request import failure_of, hold_latency, spoilt_by
from zbench.workload import Pair, pairs

LONE = 3
"""Of each size and number of steps; the median of three is not moved by one that was held up."""


def lone_requests(calls: Calls, job: TrialJob) -> list[LoneRequest]:
    """One after another, of a server that is warm and says what it took; none of any other engine.

    A request that fails ends them: the load itself will tell of it. Raises what is more than one request's failure.
    """
    if not isinstance(calls.engine, Concurrent):
        return []
    alike: dict[tuple[tuple[str, object], ...], list[Pair]] = {}
    for pair in pairs(job.trial.workload):
        alike.setdefault(tuple(pair.own.items()), []).append(pair)
    found: list[LoneRequest] = []
    with job.during("lone requests"):
        for some in alike.values():
            stands_for = list(dict.fromkeys(pair.prompt_id for pair in some)) if len(alike) > 1 else []
            for place in range(LONE):
                one = _lone(calls, job, some[place % len(some)], stands_for)
                if one is None:
                    return found
                found.append(one)
    return found


def _lone(calls: Calls, job: TrialJob, pair: Pair, stands_for: list[str]) -> LoneRequest | None:
    job.check_stop()
    try:
        made = calls.make(job.trial, pair)
    except Exception as error:
        if failure_of(error)[0] not in FAILURES_OF_ONE_REQUEST:
            raise
        return None
    hold_latency(calls.engine, made)
    if not made.served or made.server_s is None:
        return None
    return LoneRequest(pair.prompt_id, pair.seed, made.latency_s, made.server_s, stands_for, spoilt_by(made))
