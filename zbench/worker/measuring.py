"""One trial on a resident engine: warm-up, timed rounds under probes, then artifacts and quality; it never loads.

Timed rounds come in whole cycles over the workload's pairs, so that every prompt and seed weighs the same. Outside
every clock, images are hashed after each round and garbage is collected after each cycle; the collector is else off.
"""

import gc
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from zbench.config import MeasureConfig
from zbench.engines import Engine, Generation
from zbench.measurement import METRICS, RANDOM_WEIGHTS, ClockCheck, Cold, Effective, Measurement, Round
from zbench.probes.disturbance import RoundWatch
from zbench.quality.artifacts import Artifact, save_artifacts
from zbench.quality.judging import ImageJudgements, judge_images
from zbench.stats.estimate import relative_half_width
from zbench.worker.cross_checks import Check, clock_check
from zbench.worker.gauges import Gauges
from zbench.worker.job import TrialJob
from zbench.worker.warm_up import warm_up
from zbench.workload import Pair, pairs, whole_cycles


@dataclass
class _Block:
    """What the timed block gathers."""

    rounds: list[Round] = field(default_factory=list)
    first_cycle: list[Artifact] = field(default_factory=list)
    second_cycle: list[Artifact] = field(default_factory=list)  # of a quality reference: the same images made once more
    stop_reason: str = ""
    clock: Check[ClockCheck] = field(default_factory=Check)  # of the first round


def measure_trial(engine: Engine, job: TrialJob, gauges: Gauges, load_s: float | None) -> Measurement:
    """Measure `job.trial` on an engine that is loaded; `load_s` is set if it was loaded for this trial.

    Raises StopAsked between rounds, and whatever the engine raises.
    """
    cycle = pairs(job.trial.workload)
    job.stage = "cache configuration"
    engine.configure(job.trial)
    warm = warm_up(engine, job, cycle)
    effective = engine.effective()
    job.stage = "timed rounds"
    block = _Block()
    with quiet_collector():
        gauges.start(engine.watch())
        try:
            _timed_rounds(engine, job, cycle, block, gauges)
        finally:
            readings = gauges.stop(len(block.rounds))
    reasons = readings.reasons
    job.stage = "saving and comparing images"
    if effective.weights != "random":
        save_artifacts(job.artifacts, block.first_cycle, effective)
    verdict = _judge(job, block, effective)
    effective = engine.effective()  # with what the rounds moved
    latencies = warm.latencies_s or [block.rounds[0].latency_s]
    cold = Cold()
    if load_s is not None:
        cold = Cold(load_s=load_s, first_latency_s=latencies[0])
    else:
        reasons |= {"cold.load_s": "resident", "cold.first_latency_s": "resident"}
    if block.clock.reason is not None:
        reasons["telemetry.clock_check"] = block.clock.reason
    return Measurement(
        rounds=block.rounds,
        stop_reason=block.stop_reason,
        warmup_latencies_s=warm.latencies_s,
        warmup_end=warm.end,
        cold=cold,
        memory=readings.memory,
        sources=dict.fromkeys(METRICS, "measured"),
        quality=verdict.quality,
        prompt_fidelity=verdict.prompt_fidelity,
        noise_floor=verdict.noise_floor,
        energy=readings.energy,
        effective=effective,
        judges_sha256={} if effective.weights == "random" else job.judges.sha256,
        telemetry=replace(readings.telemetry, garbage_collection="between cycles", clock_check=block.clock.telemetry),
        validity=warm.suspicions() + readings.validity + ([block.clock.doubt] if block.clock.doubt else []),
        reasons=reasons | verdict.reasons,
    )


def one_round(engine: Engine, pair: Pair, index: int) -> tuple[Round, Generation]:
    """Make one image, and say how it went."""
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    made = engine.generate(pair.prompt_text, pair.seed)
    return _round(index, pair, started_at, made), made


def _timed_rounds(engine: Engine, job: TrialJob, cycle: list[Pair], block: _Block, gauges: Gauges) -> None:
    """Fill `block`, one whole cycle after another; a round that gauges speak against is kept and does not count."""
    least = whole_cycles(job.measure.min_rounds, len(cycle))
    most = whole_cycles(job.measure.max_rounds, len(cycle))
    if job.is_reference:  # a quality reference makes its images twice, so that the noise floor is known
        least = min(max(least, 2 * len(cycle)), most)
    watch = RoundWatch()
    began = time.monotonic()
    while not block.stop_reason:
        for pair in cycle:
            job.check_stop()
            index = len(block.rounds)
            watch.begin()
            gauges.begin_round()
            timed, made = one_round(engine, pair, index)
            disturbed = watch.end()
            invalid = timed.invalid_reasons + gauges.end_round()
            block.rounds.append(replace(timed, disturbances=disturbed, valid=not invalid, invalid_reasons=invalid))
            if index == 0:
                block.clock = clock_check(made)
            if index < len(cycle):
                block.first_cycle.append(Artifact(pair.prompt_id, pair.seed, made.image, made.latents))
            elif index < 2 * len(cycle) and job.is_reference:
                block.second_cycle.append(Artifact(pair.prompt_id, pair.seed, made.image, made.latents))
            job.tell_round("timed", index, made.latency_s, least, most)
            del made
        gc.collect()
        block.stop_reason = _stop_reason(block.rounds, job.measure, least, most, time.monotonic() - began)


def _stop_reason(rounds: list[Round], measure: MeasureConfig, least: int, most: int, spent_s: float) -> str:
    """Why the timed block is over: interval (of valid rounds alone), max_rounds or budget; empty while it is not."""
    if len(rounds) < least:
        return ""
    valid = [r.latency_s for r in rounds if r.valid]
    width = relative_half_width(valid) if len(valid) >= least else None
    if width is not None and width <= measure.target_rel_ci:
        return "interval"
    if len(rounds) >= most:
        return "max_rounds"
    return "budget" if spent_s >= measure.budget_s and len(valid) >= least else ""


def _round(index: int, pair: Pair, started_at: str, made: Generation) -> Round:
    import numpy as np

    finite = made.latents is None or bool(np.isfinite(made.latents).all())
    problems = {"non_finite_latents": not finite, "compiled": made.compiled}
    invalid_reasons = [name for name, happened in problems.items() if happened]
    return Round(
        index=index,
        prompt_id=pair.prompt_id,
        seed=pair.seed,
        started_at=started_at,
        latency_s=made.latency_s,
        stages_s=made.stages_s,
        steps_s=made.steps_s,
        cached_steps=made.cached_steps,
        residual_diffs=made.residual_diffs,
        images=made.images,
        text_tokens=made.text_tokens,
        image_sha256=hashlib.sha256(made.image.tobytes()).hexdigest(),
        valid=not invalid_reasons,
        invalid_reasons=invalid_reasons,
    )


def _judge(job: TrialJob, block: _Block, effective: Effective) -> ImageJudgements:
    """With random weights an image means nothing, and so does every likeness; none is kept."""
    if effective.weights == "random":
        return ImageJudgements(reasons=dict.fromkeys(("quality", "prompt_fidelity", "noise_floor"), RANDOM_WEIGHTS))
    prompts = job.trial.workload.prompts
    again = block.second_cycle if job.is_reference else None
    return judge_images(job.judges, prompts, block.first_cycle, again, job.reference, effective)


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep the garbage collector out of rounds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
