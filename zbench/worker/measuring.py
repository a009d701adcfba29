"""Trials of one residency on a resident engine: warm-up, a window of requests under gauges, then artifacts and quality.

Several trials take turns in one window: A B C, C B A, and so on, so that what drifts befalls all alike. Requests come
in whole cycles over the workload's pairs, so that every prompt and seed weighs the same. Outside every clock, images
are hashed after each request and garbage is collected after each cycle; the collector is else off. It never loads.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from zbench.config import ServedEngineConfig
from zbench.engines import Engine
from zbench.measurement import (
    INVALID_IMAGES,
    METRICS,
    RANDOM_WEIGHTS,
    Cold,
    Effective,
    Measurement,
    Memory,
    Request,
    Window,
)
from zbench.probes.disturbance import SUSPENDED, RoundWatch
from zbench.quality.artifacts import Artifact, contents, save_artifacts
from zbench.quality.judging import ImageJudgements, judge_images
from zbench.quality.validity import is_of_one_colour
from zbench.stats.estimate import relative_half_width
from zbench.worker.calls import Calls
from zbench.worker.cross_checks import cache_doubt, clock_check
from zbench.worker.gauges import Gauges, Readings
from zbench.worker.job import TrialJob
from zbench.worker.load import LoadWindow
from zbench.worker.lone import lone_requests
from zbench.worker.profiling import PROFILE_FAILED, Profile, profile_of, why_not_profiled
from zbench.worker.request import Turn, one_request
from zbench.worker.share import Share
from zbench.worker.warm_up import NOT_WARMED_UP, warm_up
from zbench.workload import Pair, pairs, whole_cycles

JUDGEMENTS = ("quality", "prompt_fidelity", "noise_floor")
"""Fields of a measurement that are said of images."""

UNTOLD = "server_does_not_say"
"""Why it is not known which steps were skipped, and how long it compiled."""

UNSAID = "engine_does_not_say"
"""Why it is not known how long it compiled."""

SHARED_WINDOW = "shared_window"
"""Why a trial has no memory and no energy of its own: the window's are of several trials."""


def measure_trials(
    engine: Engine, jobs: Sequence[TrialJob], gauges: Gauges, cold: Cold | None, launched_for: str | None = None
) -> list[Measurement]:
    """Measure trials of one residency and one workload, by turns, on an engine that is loaded.

    `cold` is set if it was loaded for them; the first trial's first latency is added. `launched_for` is the trial that
    it was loaded for. Raises StopAsked between requests, and whatever the engine raises.
    """
    workload = jobs[0].trial.workload
    if workload.is_load and len(jobs) > 1:  # what arrives at one is no load of another's
        loaded_for = [cold, *[None] * (len(jobs) - 1)]
        return [
            measure_trials(engine, [job], gauges, c, launched_for)[0] for job, c in zip(jobs, loaded_for, strict=True)
        ]
    cycle, calls = pairs(workload), Calls(engine)
    shares = []
    for job in jobs:
        with job.during("cache configuration"):
            calls.configure(job.trial)
        with job.during("warm-up rounds"):
            warm = warm_up(engine, job, cycle, calls) if workload.warm_up else NOT_WARMED_UP
            shares.append(Share(job, warm, engine.effective()))
    timed: TimedWindow
    lone = lone_requests(calls, jobs[0]) if workload.is_load and workload.warm_up else []
    timed = (
        LoadWindow(calls, shares[0], gauges, lone) if workload.is_load else _RoundsWindow(calls, shares, cycle, gauges)
    )
    with quiet_collector():
        gauges.start(engine.watch())
        try:
            window = timed.run()
        finally:
            readings = gauges.stop(len(timed.requests))
    told = any(r.begun_s is None and r.server_s is not None for r in timed.requests)
    if workload.is_load and not workload.warm_up and told:  # the load was to be the first that the pipeline saw
        lone = lone_requests(calls, jobs[0])
    shares[0].has_spoilt_lone = any(each.invalid_reasons for each in lone)
    for share in shares:
        if share.effective.weights != "random" and not share.is_spoilt:
            with share.job.during("saving images"):
                save_artifacts(share.job.artifacts, share.first_cycle, share.effective)
    if len(shares) > 1:
        readings = _of_nobody(readings)
    if any(share.was_suspended for share in shares):  # what the machine drew meanwhile is not theirs
        readings = replace(readings, energy=None, reasons=readings.reasons | {"energy": SUSPENDED})
    window = replace(window, memory=readings.memory, energy=readings.energy, lone=lone)
    if len(shares) == 1:
        calls.configure(shares[0].job.trial)  # where the last prompt had a size of its own
        shares[0].effective = engine.effective()  # with what the requests moved
    loaded = [cold or Cold(launched_for=launched_for), *[Cold(launched_for=launched_for)] * (len(shares) - 1)]
    made = [_measurement(share, window, readings, each) for share, each in zip(shares, loaded, strict=True)]
    return timed.profiled(made)


class TimedWindow(Protocol):
    """The timed block of a measurement, whichever way its requests come."""

    requests: list[Request]

    def run(self) -> Window:
        """Make the requests, and keep what came of them with their trials."""
        ...

    def profiled(self, made: list[Measurement]) -> list[Measurement]:
        """With what of each trial's forwards is communication, or why that is not known."""
        ...


class _RoundsWindow:
    """The timed block of rounds, one after another: whose turn it is, and when there is enough."""

    def __init__(self, calls: Calls, shares: Sequence[Share], cycle: Sequence[Pair], gauges: Gauges) -> None:
        self._calls, self._shares, self._cycle, self._gauges = calls, shares, cycle, gauges
        self._watch = RoundWatch(calls.engine.watch().pids)
        self._began_s = 0.0
        self.requests: list[Request] = []

    def run(self) -> Window:
        """One whole cycle after another, until every trial has had enough."""
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._began_s = time.perf_counter()
        reasons = [""]
        gc.freeze()  # what warm-up left, compiled code above all, stays out of the collections between rounds
        try:
            while "" in reasons:
                self._cycle_of_turns()
                gc.collect()
                spent_s = (time.perf_counter() - self._began_s) / len(self._shares)
                reasons = [_stop_reason(share, len(self._cycle), spent_s) for share in self._shares]
        finally:
            gc.unfreeze()
        for share, reason in zip(self._shares, reasons, strict=True):
            share.stop_reason = reason
        return Window(self.requests, reasons[0], started_at=started_at, wall_s=self.requests[-1].done_s)

    def _cycle_of_turns(self) -> None:
        """Every prompt and seed once, of every trial; the trials take turns, A B and then B A."""
        for pair in self._cycle:
            backwards = len(self._shares[0].requests) % 2
            for share in reversed(self._shares) if backwards else self._shares:
                with share.job.during("timed rounds"):
                    self._turn(share, pair)

    def profiled(self, made: list[Measurement]) -> list[Measurement]:
        """With what of each trial's forwards is communication: by one call more, where there may be any.

        The measurements are told before: a profile that fails takes nothing of them along.
        """
        reasons = [
            INVALID_IMAGES if share.is_spoilt else why_not_profiled(share.job.trial, share.effective)
            for share in self._shares
        ]
        if None in reasons:
            kept = [
                Profile(reason=reason or PROFILE_FAILED).within(each)
                for reason, each in zip(reasons, made, strict=True)
            ]
            self._shares[0].job.tell({"event": "measured", "measurements": [asdict(each) for each in kept]})
        profiles = [
            self._profile(share) if reason is None else Profile(reason=reason)
            for share, reason in zip(self._shares, reasons, strict=True)
        ]
        return [profile.within(each) for profile, each in zip(profiles, made, strict=True)]

    def _profile(self, share: Share) -> Profile:
        with share.job.during("profiling communication"):
            self._calls.configure(share.job.trial)
            return profile_of(self._calls.engine, self._cycle[0])

    def _turn(self, share: Share, pair: Pair) -> None:
        """One request; one that gauges speak against is kept and does not count. One during which the process was
        stopped, or the machine slept, is not the trial's doing at all: it is kept too, and made again."""
        self._calls.prepare(share.job.trial, pair)
        while SUSPENDED in self._request(share, pair).disturbances:
            share.was_suspended = True

    def _request(self, share: Share, pair: Pair) -> Request:
        job, n_pairs = share.job, len(self._cycle)
        job.check_stop()
        self._watch.begin()
        self._gauges.begin_round()
        turn = Turn(len(self.requests), job.trial.trial_id, job.role)
        made_by = partial(self._calls.make, job.trial)
        timed, made = one_request(self._calls.engine, pair, turn, self._began_s, made_by)
        disturbed = self._watch.end()
        suspended = [cause for cause in disturbed if cause == SUSPENDED]
        invalid = timed.invalid_reasons + suspended + self._gauges.end_round()
        timed = replace(timed, disturbances=disturbed, valid=not invalid, invalid_reasons=invalid)
        self.requests.append(timed)
        if suspended:
            return timed
        count = len(share.requests)
        share.requests.append(timed)
        if count == 0:
            share.clock = clock_check(made)
        if count < n_pairs:
            share.first_cycle.append(Artifact(pair.prompt_id, pair.seed, made.image, made.latents))
        elif count < 2 * n_pairs and job.is_reference:
            share.second_cycle.append(Artifact(pair.prompt_id, pair.seed, made.image, made.latents))
        job.tell_round("timed", count, made.latency_s, *_bounds(job, n_pairs))
        return timed


def _bounds(job: TrialJob, n_pairs: int) -> tuple[int, int]:
    """The fewest and the most requests; a quality reference makes its images twice, so that its noise is known."""
    least = whole_cycles(job.measure.min_rounds, n_pairs)
    most = whole_cycles(job.measure.max_rounds, n_pairs)
    return (min(max(least, 2 * n_pairs), most) if job.is_reference else least), most


def _stop_reason(share: Share, n_pairs: int, spent_s: float) -> str:
    """Why a trial has enough: interval (of valid requests alone), max_rounds, budget or that its images are none;
    empty while it has not."""
    measure, (least, most) = share.job.measure, _bounds(share.job, n_pairs)
    if len(share.requests) < least:
        return ""
    if share.is_spoilt:
        return INVALID_IMAGES
    valid = [r.latency_s for r in share.requests if r.valid]
    width = relative_half_width(valid) if len(valid) >= least else None
    if width is not None and width <= measure.target_rel_ci:
        return "interval"
    if len(share.requests) >= most:
        return "max_rounds"
    return "budget" if spent_s >= measure.budget_s and len(valid) >= least else ""


def _of_nobody(readings: Readings) -> Readings:
    """Of a window of several trials: no peak and no energy is any one's own."""
    missing = (*(f"memory.{item.name}" for item in fields(Memory)), "energy")
    return replace(
        readings, memory=Memory(), energy=None, reasons=readings.reasons | dict.fromkeys(missing, SHARED_WINDOW)
    )


def _measurement(share: Share, window: Window, readings: Readings, cold: Cold) -> Measurement:
    """What a trial keeps of the window: its own requests and the baseline's."""
    job, warm, effective = share.job, share.warm, share.effective
    trial_id, reasons = job.trial.trial_id, dict(readings.reasons)
    with job.during("comparing images"):
        verdict = _judge(share, effective)
    cold, unknown = _cold(share, cold)
    reasons |= unknown
    if share.clock.reason is not None:
        reasons["telemetry.clock_check"] = share.clock.reason
    if effective.tells_cached_steps is False:
        reasons["cached_steps"] = UNTOLD
    doubts = (share.clock.doubt, _flat(share), cache_doubt(job.trial, effective, verdict.quality))
    collected = "after the window" if window.arrivals.kind != "sequential" else "between cycles"
    telemetry = replace(readings.telemetry, garbage_collection=collected, clock_check=share.clock.telemetry)
    kept = [r for r in window.requests if r.trial_id == trial_id or r.role == "baseline"]
    return Measurement(
        trial_id=trial_id,
        window=replace(
            window,
            requests=kept,
            left_out=len(window.requests) - len(kept),
            stop_reason=share.stop_reason,
            telemetry=telemetry,
        ),
        warmup_latencies_s=warm.latencies_s or [share.requests[0].latency_s],
        warmup_end=warm.end,
        spoilt_warmups=warm.spoilt,
        cold=cold,
        sources=dict.fromkeys(METRICS, "measured"),
        quality=verdict.quality,
        prompt_fidelity=verdict.prompt_fidelity,
        noise_floor=verdict.noise_floor,
        effective=effective,
        judges_sha256={} if effective.weights == "random" else job.judges.sha256,
        reference_sha256=_of_reference(job),
        validity=[*warm.suspicions(), *readings.validity, *filter(None, doubts)],
        reasons=reasons | verdict.reasons,
    )


def _cold(share: Share, cold: Cold) -> tuple[Cold, dict[str, str]]:
    """With what the trial's own calls say, and why what is still not known is not."""
    warm, first = share.warm, share.requests[0]
    unknown: dict[str, str] = {}
    if cold.load_s is None:
        unknown |= {"cold.load_s": "resident", "cold.first_latency_s": "resident"}
    else:
        first_s = [cold.first_latency_s, *warm.latencies_s, first.latency_s]
        cold = replace(cold, first_latency_s=next(s for s in first_s if s is not None))
    compile_s = warm.compile_s if warm.latencies_s else None if first.compile_s is None else 0.0
    if compile_s is None:
        unknown["cold.compile_s"] = UNTOLD if isinstance(share.job.trial.engine, ServedEngineConfig) else UNSAID
    return replace(cold, compile_s=compile_s, compiled_calls=warm.compiled_calls), unknown


def _judge(share: Share, effective: Effective) -> ImageJudgements:
    """With random weights an image means nothing, and so does every likeness; none is kept. Nor is any of images that
    are none: two black ones would be identical."""
    job = share.job
    if effective.weights == "random":
        return ImageJudgements(reasons=dict.fromkeys(JUDGEMENTS, RANDOM_WEIGHTS))
    if share.is_spoilt:
        return ImageJudgements(reasons=dict.fromkeys(JUDGEMENTS, INVALID_IMAGES))
    again = share.second_cycle if job.is_reference else None
    made_by = None if job.of_other_weights else effective
    return judge_images(job.judges, job.trial.workload.prompts, share.first_cycle, again, job.reference, made_by)


def _of_reference(job: TrialJob) -> dict[str, str]:
    """The content of a reference that is of other weights on purpose."""
    if job.reference is None or not job.of_other_weights:
        return {}
    return contents(job.reference).effective.content


def _flat(share: Share) -> str | None:
    """A doubt where images are of one colour all over, which weights give that say nothing, and seldom a prompt."""
    if share.effective.weights == "random" or share.is_spoilt:
        return None
    flat = [made for made in share.first_cycle if is_of_one_colour(made.image)]
    if not flat:
        return None
    first = f"{flat[0].prompt_id} with seed {flat[0].seed}"
    return f"{len(flat)} of {len(share.first_cycle)} images are of one colour all over, first {first}: look at it"


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep the garbage collector out of requests."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
