"""Trials of one residency on a resident engine: warm-up, a window of requests under gauges, then artifacts and quality.

Several trials take turns in one window (`rounds`), so that what drifts befalls all alike. Requests come in whole cycles
over the workload's pairs, so that every prompt and seed weighs the same. Outside every clock, images are hashed after
each request and garbage is collected after each cycle; the collector is else off. It never loads.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from zbench.config import ServedEngineConfig
from zbench.engines import Engine
from zbench.measurement import (
    INVALID_IMAGES,
    METRICS,
    QUALITY_ONLY,
    RANDOM_WEIGHTS,
    SUSPENDED,
    UNTIMED,
    Cold,
    Effective,
    Measurement,
    Request,
    Window,
)
from zbench.quality.artifacts import contents, save_artifacts
from zbench.quality.judging import ImageJudgements, judge_images
from zbench.quality.validity import is_of_one_colour
from zbench.worker.calls import Calls
from zbench.worker.cross_checks import cache_doubt
from zbench.worker.gauges import Gauges, Readings
from zbench.worker.job import TrialJob
from zbench.worker.load import LoadWindow
from zbench.worker.lone import lone_requests
from zbench.worker.rounds import RoundsWindow
from zbench.worker.share import Share
from zbench.worker.warm_up import NOT_WARMED_UP, warm_up
from zbench.workload import COMPANION_WARM_UPS, pairs

JUDGEMENTS = ("quality", "prompt_fidelity", "noise_floor")
"""Fields of a measurement that are said of images."""

UNTOLD = "server_does_not_say"
"""Why it is not known which steps were skipped, and how long it compiled."""

UNSAID = "engine_does_not_say"
"""Why it is not known how long it compiled."""


def measure_trials(
    engine: Engine, jobs: Sequence[TrialJob], gauges: Gauges, cold: Cold | None, launched_for: str | None = None
) -> list[Measurement]:
    """Measure trials of one residency and one workload, by turns, on an engine that is loaded.

    `cold` is set if it was loaded for them; the first trial's first latency is added. `launched_for` is the trial that
    it was loaded for. A companion, the last of them, has turns and no measurement of its own. The first may be what the
    others are compared with, and the reference: its images are saved before theirs are judged. Raises StopAsked between
    requests, and whatever the engine raises.
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
            brief = min(job.measure.max_warmup_rounds, COMPANION_WARM_UPS)
            warmed = replace(job, measure=replace(job.measure, max_warmup_rounds=brief)) if job.companion else job
            wanted = workload.warm_up and not job.measure.quality_only
            warm = warm_up(engine, warmed, cycle, calls) if wanted else NOT_WARMED_UP
            shares.append(Share(job, warm, engine.effective()))
    timed: TimedWindow
    lone = lone_requests(calls, jobs[0]) if workload.is_load and workload.warm_up else []
    timed = (
        LoadWindow(calls, shares[0], gauges, lone) if workload.is_load else RoundsWindow(calls, shares, cycle, gauges)
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
    window = replace(window, lone=lone)
    settings = [share for share in shares if not share.job.companion]
    for share in settings:
        if share.effective.weights != "random" and not share.is_spoilt:
            with share.job.during("saving images"):
                save_artifacts(share.job.artifacts, share.first_cycle, share.effective)
    for share in settings[1:]:
        if settings[0].is_spoilt and share.job.reference == settings[0].job.artifacts:
            share.job.reference = None
    if len(shares) == 1:
        calls.configure(shares[0].job.trial)  # where the last prompt had a size of its own
        shares[0].effective = engine.effective()  # with what the requests moved
    made = []
    for share in settings:
        own = readings if len(shares) == 1 else gauges.of_turns(share.job.trial.trial_id, len(share.requests))
        loaded = cold if share is settings[0] and cold is not None else Cold(launched_for=launched_for)
        made.append(_measurement(share, window, own, loaded))
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


def _measurement(share: Share, window: Window, readings: Readings, cold: Cold) -> Measurement:
    """What a trial keeps of the window: its own requests and those of the uncached trial that took turns with it, and
    what gauges saw in its own turns."""
    job, warm, effective = share.job, share.warm, share.effective
    if share.was_suspended:  # what the machine drew meanwhile is not the trial's
        readings = replace(readings, energy=None, reasons=readings.reasons | {"energy": SUSPENDED})
    trial_id, reasons = job.trial.trial_id, dict(readings.reasons)
    with job.during("comparing images"):
        verdict = _judge(share, effective)
    cold, unknown = _cold(share, cold)
    reasons |= unknown
    if share.clock.reason is not None:
        reasons["telemetry.clock_check"] = share.clock.reason
    if effective.tells_cached_steps is False:
        reasons["cached_steps"] = UNTOLD
    doubts = (share.clock.doubt, _flat(share), _moved(share), cache_doubt(job.trial, effective, verdict.quality))
    collected = "after the window" if window.arrivals.kind != "sequential" else "between cycles"
    telemetry = replace(readings.telemetry, garbage_collection=collected, clock_check=share.clock.telemetry)
    warmup_latencies_s = warm.latencies_s or [share.requests[0].latency_s]
    if job.measure.quality_only:
        cold, warmup_latencies_s = Cold(launched_for=cold.launched_for), []
        readings = replace(readings, energy=None)
        reasons |= dict.fromkeys(UNTIMED, QUALITY_ONLY)
    made = [replace(r, role=job.role) if r.trial_id == trial_id else r for r in window.requests]
    kept = [r for r in made if r.trial_id == trial_id or r.role == "baseline"]
    return Measurement(
        trial_id=trial_id,
        window=replace(
            window,
            requests=kept,
            left_out=len(window.requests) - len(kept),
            stop_reason=share.stop_reason or window.stop_reason,
            memory=readings.memory,
            energy=readings.energy,
            telemetry=telemetry,
        ),
        warmup_latencies_s=warmup_latencies_s,
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


def _moved(share: Share) -> str | None:
    """A doubt where the trial that others are compared with made one image before they were configured, and another
    since, always the same: then something of theirs stays on."""
    first = share.requests[0]
    made = {r.image_sha256 for r in share.requests if (r.prompt_id, r.seed) == (first.prompt_id, first.seed)}
    known = share.job.is_beside and share.job.shares and share.warm.image_sha256 is not None
    if not known or len(made) > 1 or len(share.requests) == len(made) or share.warm.image_sha256 in made:
        return None
    which = f"{first.prompt_id} with seed {first.seed}"
    return f"{which} has another image since others had turns: measure.paired=false measures this trial before them"


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep the garbage collector out of requests."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
