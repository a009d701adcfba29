"""Records of trials on a known surface (`engines/surfaces.py`), made in this process in a few milliseconds each."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from factories import failed, measurement
from surfaces import Surface

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import view_of
from zbench.analysis.work import work_key
from zbench.measurement import QUALITY_ONLY, UNTIMED, Cold, ImageQuality, Measurement, Memory, PromptFidelity
from zbench.record import Record
from zbench.search import Search, held_out_for, parts_of
from zbench.search.references import WithReferences
from zbench.space import Placed
from zbench.trial import Trial

CALLS = 2
"""Of each sample."""


def ran(surface: Surface, placed: Placed, calls: int = CALLS) -> Record:
    """What measuring a trial on the surface comes to; FAILED where it does not fit."""
    trial = placed.trial
    if not surface.fits(trial):
        return replace(failed(trial), reference_id=placed.reference_id, baseline_id=placed.baseline_id)
    samples = [(p, seed) for p in trial.workload.prompts for seed in trial.workload.seeds]
    whole = measurement(trial, n_rounds=calls * len(samples), prompt_share=1.0, vram_gib=1.0)
    texts = {p.id: p.text for p in trial.workload.prompts}
    requests, begun_s = [], 0.0
    for request in whole.window.requests:
        sample = texts[request.prompt_id], request.seed
        skipped, diffs = surface.skipping(trial, sample, request.index)
        latency_s = surface.latency_s(trial, len(skipped), request.index)
        times: dict[str, Any] = dict.fromkeys(("due_s", "sent_s", "begun_s"), begun_s)
        begun_s += latency_s
        requests.append(
            replace(
                request,
                **times,
                done_s=begun_s,
                latency_s=latency_s,
                stages_s={"denoise": latency_s * 0.9, "decode": latency_s * 0.05},
                steps_s=[latency_s * 0.9 / trial.pipeline.steps] * trial.pipeline.steps,
                cached_steps=skipped,
                residual_diffs=diffs,
                image_sha256=hashlib.sha256(repr((sample, skipped)).encode()).hexdigest(),
            )
        )
    made = [(p.id, seed, surface.skipping(trial, (p.text, seed))[0], (p.text, seed)) for p, seed in samples]
    quality = [_likeness(surface.ssim(trial, sample, skipped), p, s) for p, s, skipped, sample in made]
    shares = [(p, s, surface.share_right(trial, sample, skipped)) for p, s, skipped, sample in made]
    window = replace(
        whole.window,
        requests=requests,
        wall_s=begun_s,
        memory=Memory(peak_device_bytes=surface.memory_bytes(trial), host_peak_rss_bytes=2**30),
    )
    measured = replace(
        whole,
        window=window,
        quality=None if placed.is_reference else quality,
        prompt_fidelity=[PromptFidelity(p, s, share, [] if share == 1 else ["colour"]) for p, s, share in shares],
        reasons={key: why for key, why in whole.reasons.items() if key != "prompt_fidelity"},
    )
    measured = untimed(measured, len(samples)) if placed.quality_only else measured
    record = replace(failed(trial), state="COMPLETE", reason=None, source=measured.source, measurement=measured)
    return replace(record, reference_id=placed.reference_id, baseline_id=placed.baseline_id)


def untimed(measured: Measurement, samples: int) -> Measurement:
    """As where only its images were asked for: each sample once, and nothing is said of time."""
    requests = [replace(r, valid=False, invalid_reasons=[QUALITY_ONLY]) for r in measured.requests[:samples]]
    window = replace(measured.window, requests=requests, wall_s=requests[-1].done_s)
    reasons = {**measured.reasons, **dict.fromkeys(UNTIMED, QUALITY_ONLY)}
    return replace(measured, window=window, warmup_latencies_s=[], cold=Cold(), reasons=reasons)


def _likeness(ssim: float, prompt_id: str, seed: int) -> ImageQuality:
    if ssim >= 1:
        return ImageQuality(prompt_id, seed, True, None, 1.0, 0.0)
    return ImageQuality(prompt_id, seed, False, 20 + 30 * ssim**4, ssim, 1 - ssim)


def searched(search: Search, surface: Surface, most: int = 10_000) -> Iterator[tuple[Record, TrialFigures]]:
    """Run a search as a sweep of one worker does, references first; each record as it comes."""
    asking, known = WithReferences(search, "tests"), {}
    for _ in range(most):
        placed = asking.next_placed()
        if placed is None:
            return
        work = work_key(placed.trial)
        others = tuple(held_out_for(search).get(work, ()))
        record = replace(ran(surface, placed), part_of=parts_of(search).get(work), held_out_for=others)
        known[record.trial_id] = record
        held_to = dict.fromkeys((record.reference_id, record.baseline_id, record.trial_id))
        rows = view_of([known[i] for i in held_to if i in known]).trials
        figures = next(row for row in rows if row.trial_id == record.trial_id)
        asking.tell(record, figures)
        yield record, figures


def true_ssim(surface: Surface, trial: Trial) -> float:
    """Of the worst sample."""
    samples = [(p.text, seed) for p in trial.workload.prompts for seed in trial.workload.seeds]
    return min(surface.ssim(trial, sample, surface.skipping(trial, sample)[0]) for sample in samples)
