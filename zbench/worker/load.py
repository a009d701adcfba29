"""A window of requests that come as `workload.arrivals` says and may overlap: a load on one trial.

Requests that fail are counted, with their reason, and kept beside the others; where none brought an image the trial
fails as the first did. Images are looked at and hashed by a thread of its own, outside every request's clock. Garbage
is collected once the window is over.
"""

import gc
import time
from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, takewhile

from zbench.engines import FAILURES_OF_ONE_REQUEST, Concurrent, Generation, StageError
from zbench.engines.failure import code_of
from zbench.errors import one_line
from zbench.measurement import SUSPENDED, Arrivals, FailedRequest, Measurement, Request, Window
from zbench.probes.disturbance import RoundWatch
from zbench.quality.artifacts import Artifact
from zbench.worker.arriving import Answer, Answers, Clock, Schedule, by_threads, in_one_queue
from zbench.worker.calls import Calls
from zbench.worker.cross_checks import clock_check
from zbench.worker.gauges import Gauges
from zbench.worker.profiling import Profile
from zbench.worker.request import Times, Turn, hold_latency, request_of, times_of
from zbench.worker.share import Share
from zbench.workload import Pair, due_times_s, pairs, requested

NOT_OF_LOAD = "load"
"""Why nothing is known of communication: a call under a profiler would be no part of the load."""

ALL_SENT = "all_sent"


class LoadWindow:
    """Its requests, in the order in which they were due."""

    def __init__(self, calls: Calls, share: Share, gauges: Gauges) -> None:
        self._calls, self._engine = calls, calls.engine
        self._share, self._gauges = share, gauges
        self._workload = share.job.trial.workload
        self._pairs = requested(self._workload)
        self._watch = RoundWatch(calls.engine.watch().pids)
        self._failures: list[FailedRequest] = []
        self._first_error: Exception | None = None  # one alone: each keeps the frames of its call alive
        self._looked_at: list[Future[Request]] = []
        self._kept: dict[tuple[str, int], list[Artifact]] = {}
        self._disturbed: list[tuple[float, float, list[str]]] = []  # from when to when, and by what
        self.requests: list[Request] = []

    def run(self) -> Window:
        """Make all requests. Raises StopAsked, and what an engine raises that is more than one request's failure."""
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        gc.freeze()  # what warm-up left stays out of the collection at the end
        try:
            with self._share.job.during("requests under load"), ThreadPoolExecutor(1, "zbench-hash") as looking:
                self._all(looking)
        finally:
            gc.unfreeze()
        gc.collect()
        found = sorted((future.result() for future in self._looked_at), key=lambda r: r.index)
        if self._first_error is not None and not found:
            raise self._first_error
        self.requests = [self._with_disturbances(request) for request in found]
        self._keep_with_share()
        ends_s = [r.done_s for r in self.requests] + [f.done_s for f in self._failures]
        return Window(
            self.requests,
            self._share.stop_reason,
            started_at=started_at,
            wall_s=max(ends_s),
            arrivals=self._arrivals_kept(),
            failures=sorted(self._failures, key=lambda failed: failed.index),
        )

    def profiled(self, made: list[Measurement]) -> list[Measurement]:
        """Nothing is profiled."""
        return [Profile(reason=NOT_OF_LOAD).within(each) for each in made]

    def _all(self, looking: ThreadPoolExecutor) -> None:
        self._began_s = time.perf_counter()
        clock = Clock(self._began_s, self._share.job.check_stop)
        self._watch.begin()
        seen_s = 0.0
        with closing(self._answers(clock)) as answers:
            for answer in answers:
                now_s = clock.now()
                self._disturbed.append((seen_s, now_s, self._watch.end()))
                self._watch.begin()
                seen_s = now_s
                self._take(answer, looking)

    def _answers(self, clock: Clock) -> Answers:
        schedule = Schedule(len(self._pairs), due_times_s(self._workload), self._workload.concurrency)
        if isinstance(self._engine, Concurrent):
            return by_threads(self._call, schedule, clock, self._engine.at_once())
        return in_one_queue(self._call, schedule, clock)

    def _call(self, index: int) -> Generation:
        made = self._calls.make(self._share.job.trial, self._pairs[index])
        hold_latency(self._engine, made)
        return made

    def _take(self, answer: Answer, looking: ThreadPoolExecutor) -> None:
        """One answer, while others are on their way: nothing here may take long."""
        job, pair = self._share.job, self._pairs[answer.index]
        number = len(self._looked_at) + len(self._failures)
        job.tell_round("timed", number, answer.done_s - answer.sent_s, len(self._pairs), len(self._pairs))
        if answer.made is None:
            self._fail(answer, pair)
            return
        made, times = answer.made, _times(answer)
        if answer.index == 0:
            self._share.clock = clock_check(made)
        artifacts = self._kept.setdefault((pair.prompt_id, pair.seed), [])
        if len(artifacts) < (2 if job.is_reference else 1):
            artifacts.append(Artifact(pair.prompt_id, pair.seed, made.image, made.latents))
        begun_s = times.sent_s if times.begun_s is None else times.begun_s
        blamed = self._gauges.reasons_between(self._began_s + begun_s, self._began_s + times.done_s)
        turn = Turn(answer.index, job.trial.trial_id, job.role)
        self._looked_at.append(looking.submit(_request, made, pair, turn, times, blamed))

    def _fail(self, answer: Answer, pair: Pair) -> None:
        """Count it. Raises what is no failure of one request alone."""
        error = answer.error
        assert error is not None, "an answer is an image or an error"
        cause = error.__cause__ if isinstance(error, StageError) and error.__cause__ is not None else error
        code = code_of(cause)
        if code not in FAILURES_OF_ONE_REQUEST:
            raise error
        if self._first_error is None:
            self._first_error = error
        else:
            _let_go(error)
        self._failures.append(
            FailedRequest(
                answer.index,
                pair.prompt_id,
                pair.seed,
                answer.due_s,
                answer.sent_s,
                answer.done_s,
                code,
                one_line(cause),
            )
        )

    def _with_disturbances(self, request: Request) -> Request:
        """With what befell the host between sent and done. A time in which the process was stopped is nobody's."""
        first = bisect_right(self._disturbed, request.sent_s, key=lambda slice_: slice_[1])
        meanwhile = takewhile(lambda slice_: slice_[0] < request.done_s, islice(self._disturbed, first, None))
        disturbed = list(dict.fromkeys(cause for _, _, found in meanwhile for cause in found))
        invalid = [*request.invalid_reasons, *(cause for cause in disturbed if cause == SUSPENDED)]
        self._share.was_suspended |= SUSPENDED in disturbed
        return replace(request, disturbances=disturbed, valid=not invalid, invalid_reasons=invalid)

    def _keep_with_share(self) -> None:
        """A pair's first image, and of a quality reference the second one where there is one of every pair."""
        share = self._share
        share.requests, share.stop_reason = self.requests, ALL_SENT
        cycle = [(pair.prompt_id, pair.seed) for pair in pairs(self._workload)]
        kept = [self._kept[key] for key in cycle if key in self._kept]
        share.first_cycle = [artifacts[0] for artifacts in kept]
        if len(kept) == len(cycle) and all(len(artifacts) > 1 for artifacts in kept):
            share.second_cycle = [artifacts[1] for artifacts in kept]

    def _arrivals_kept(self) -> Arrivals:
        workload = self._workload
        at_once = self._engine.at_once() if isinstance(self._engine, Concurrent) else 1
        return Arrivals(
            kind=workload.arrivals,  # type: ignore[arg-type]  # its check knows the kinds
            concurrency=workload.concurrency,
            rate_per_s=workload.rate_per_s,
            objective_s=workload.latency_objective_s,
            at_once=at_once,
            warmed_up=workload.warm_up,
        )


def _let_go(error: BaseException | None) -> None:
    """Cut an error from the frames of its call, which hold what a server answered and the error itself."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _times(answer: Answer) -> Times:
    """Of an answer that is an image."""
    made = answer.made
    assert made is not None, "it is an image"
    if made.served:
        return times_of(made, answer.sent_s, answer.done_s, answer.due_s)
    return Times(answer.due_s, answer.sent_s, answer.begun_s, answer.done_s, answer.done_s - answer.sent_s)


def _request(made: Generation, pair: Pair, turn: Turn, times: Times, blamed: list[str]) -> Request:
    """As a window keeps it; the call's own time stands beside the waiting for it."""
    request = request_of(made, pair, turn, times)
    invalid = [*request.invalid_reasons, *blamed]
    server_s = request.server_s if made.served else made.latency_s
    return replace(request, server_s=server_s, valid=not invalid, invalid_reasons=invalid)
