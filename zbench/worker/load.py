"""A window of requests that come as `workload.arrivals` says and may overlap: a load on one trial.

Requests that fail are counted, with their reason, and kept beside the others; where none brought an image the trial
fails as the first did. Images are looked at and hashed by a thread of its own, outside every request's clock. Garbage
is collected once the window is over.
"""

import gc
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

from zbench.engines import FAILURES_OF_ONE_REQUEST, Concurrent, Generation
from zbench.errors import one_line
from zbench.measurement import SUSPENDED, Arrivals, FailedRequest, LoneRequest, Measurement, Request, Window
from zbench.measurement.lone import outside_s
from zbench.probes.disturbance import RoundWatch
from zbench.quality.artifacts import Artifact
from zbench.trial import Trial
from zbench.worker.arriving import Answer, Answers, Clock, Schedule, by_threads, in_one_queue
from zbench.worker.befallen import Befallen
from zbench.worker.calls import Calls
from zbench.worker.cross_checks import clock_check
from zbench.worker.gauges import Gauges
from zbench.worker.profiling import Profile
from zbench.worker.request import Times, Turn, failure_of, hold_latency, request_of, times_of
from zbench.worker.share import Share
from zbench.workload import Pair, due_times_s, pairs, requested

NOT_OF_LOAD = "load"
"""Why nothing is known of communication: a call under a profiler would be no part of the load."""

ALL_SENT = "all_sent"


KEPT_BYTES = 2**30
"""Of pixels that a load holds in memory until it is over; a quality reference holds twice as much."""


def kept_pairs(trial: Trial) -> list[tuple[str, int]]:
    """Prompts and seeds, the first of the workload, whose images are kept and judged."""
    pipeline = trial.pipeline
    largest = max(p.own.get("width", 0) * p.own.get("height", 0) for p in trial.workload.prompts)
    most = max(1, KEPT_BYTES // (3 * max(largest, pipeline.width * pipeline.height)))
    return [(pair.prompt_id, pair.seed) for pair in islice(pairs(trial.workload), most)]


class LoadWindow:
    """Its requests, in the order in which they were due."""

    def __init__(self, calls: Calls, share: Share, gauges: Gauges, lone: Sequence[LoneRequest] = ()) -> None:
        """`lone` are requests that were made before."""
        self._calls, self._engine = calls, calls.engine
        self._share, self._gauges, self._lone = share, gauges, lone
        self._workload = share.job.trial.workload
        self._pairs = requested(self._workload)
        self._watch = RoundWatch(calls.engine.watch().pids)
        self._failures: list[FailedRequest] = []
        self._first_error: Exception | None = None  # one alone: each keeps the frames of its call alive
        self._looked_at: list[Future[Request]] = []
        self._kept: dict[tuple[str, int], list[Artifact]] = {pair: [] for pair in kept_pairs(share.job.trial)}
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
        befallen = Befallen(self._disturbed)
        self.requests = [self._with_disturbances(request, befallen) for request in found]
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
        took_s = answer.done_s - answer.sent_s if answer.made is None else _times(answer).latency_s
        job.tell_round("timed", number, took_s, len(self._pairs), len(self._pairs))
        if answer.made is None:
            self._fail(answer, pair)
            return
        made, times = answer.made, _times(answer)
        if answer.index == 0:
            self._share.clock = clock_check(made)
        artifacts = self._kept.get((pair.prompt_id, pair.seed))
        if artifacts is not None and len(artifacts) < (2 if job.is_reference else 1):
            artifacts.append(Artifact(pair.prompt_id, pair.seed, made.image, made.latents))
        begun_s = self._begun_s(times, made, pair)
        blamed = self._gauges.reasons_between(self._began_s + begun_s, self._began_s + times.done_s)
        turn = Turn(answer.index, job.trial.trial_id, job.role)
        self._looked_at.append(looking.submit(_request, made, pair, turn, times, blamed))

    def _begun_s(self, times: Times, made: Generation, pair: Pair) -> float:
        """When the device began at the latest, so that nobody is blamed for what befell it while he waited."""
        if times.begun_s is not None:
            return times.begun_s
        worked_s = None if made.server_s is None else made.server_s + (outside_s(self._lone, pair.prompt_id) or 0.0)
        return times.sent_s if worked_s is None else max(times.sent_s, times.done_s - worked_s)

    def _fail(self, answer: Answer, pair: Pair) -> None:
        """Count it. Raises what is no failure of one request alone."""
        error = answer.error
        assert error is not None, "an answer is an image or an error"
        code, cause = failure_of(error)
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

    def _with_disturbances(self, request: Request, befallen: Befallen) -> Request:
        """With what befell the host between sent and done. A time in which the process was stopped is nobody's."""
        disturbed = befallen.between(request.sent_s, request.done_s)
        invalid = [*request.invalid_reasons, *(cause for cause in disturbed if cause == SUSPENDED)]
        self._share.was_suspended |= SUSPENDED in disturbed
        return replace(request, disturbances=disturbed, valid=not invalid, invalid_reasons=invalid)

    def _keep_with_share(self) -> None:
        """The first image of each pair that is kept, and of a quality reference the second where each has one."""
        share = self._share
        share.requests, share.stop_reason = self.requests, ALL_SENT
        kept = list(self._kept.values())
        share.first_cycle = [artifacts[0] for artifacts in kept if artifacts]
        if all(len(artifacts) > 1 for artifacts in kept):
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
