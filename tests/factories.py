"""Records for tests: whole, consistent and made without running anything."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    EfficiencyConfig,
    EngineConfig,
    HardwareConfig,
    MeasureConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    Prompt,
    SCMConfig,
    SearchConfig,
    WorkloadConfig,
)
from zbench.measurement import (
    Cold,
    Effective,
    ImageQuality,
    Measurement,
    Memory,
    ProjectedRound,
    Projection,
    PromptFidelity,
    Request,
    Window,
)
from zbench.record import Reason, Record, held_to_its_images
from zbench.trial import Trial

GIB = 2**30
GRID = SearchConfig(name="grid", target="zbench.search.grid:GridSearch")
WINDOWS_OWN = {"requests", "stop_reason", "memory", "energy", "telemetry"}
"""What `measurement` passes on to the window."""
STEPS = 8
TEXT_TOKENS = 30
TINY = PipelineConfig(
    name="zimage_tiny", preset="zimage_tiny", height=256, width=256, steps=STEPS, max_sequence_length=128
)
TURBO = PipelineConfig(
    name="zimage_turbo",
    preset="zimage_turbo",
    hub_id="Tongyi-MAI/Z-Image-Turbo",
    height=1024,
    width=1024,
    steps=STEPS,
)
SCENES = WorkloadConfig(
    name="scenes",
    prompts=[
        Prompt(id="en-circle", text="a large red circle on a white background", language="en"),
        Prompt(id="zh-square", text="灰色背景上有一个蓝色的正方形", language="zh"),
    ],
    seeds=[0],
)
ENVIRONMENT: dict[str, Any] = {
    "os": "Linux-6.1-x86_64",
    "python": "3.11.7",
    "cpu": "Example CPU @ 2.0 GHz",
    "cores": 2,
    "host_memory_bytes": 8 * GIB,
    "devices": [],
    "driver": None,
    "versions": {
        "torch": "2.13.0",
        "diffusers": "0.42.1",
        "transformers": "5.23.0",
        "cache-dit": "1.5.3",
        "zbench": "0.1.0",
    },
    "git_revision": "0123456789abcdef0123456789abcdef01234567",
    "git_dirty": False,
    "fingerprint": "0123456789ab",
}


def trial(cache: CacheConfig | None = None, **groups: Any) -> Trial:
    """The tiny pipeline over two scenes, except for the groups given."""
    defaults: dict[str, Any] = {
        "pipeline": TINY,
        "engine": EngineConfig(name="reference", target="zbench.engines.reference:ReferenceEngine"),
        "parallel": ParallelConfig(),
        "offload": OffloadConfig(),
        "compute": ComputeConfig(),
        "workload": SCENES,
    }
    return Trial(cache=cache or CacheConfig(), **{**defaults, **groups})


def turbo(cache: CacheConfig | None = None, **groups: Any) -> Trial:
    """A trial of the full-size pipeline."""
    return trial(cache, **{"pipeline": TURBO, **groups})


def measurement(
    of: Trial,
    *,
    latency_s: float = 1.0,
    spread: float = 0.01,
    n_rounds: int = 8,
    cached: tuple[int, ...] = (),
    ssim: float | None = None,
    psnr_db: float | None = 30.0,
    ms_ssim: float | None = None,
    lpips: float | None = None,
    prompt_share: float | None = None,
    wrong: tuple[str, ...] = ("colour",),
    diffs: Mapping[int, float] | None = None,
    vram_gib: float | None = None,
    **changes: Any,
) -> Measurement:
    """Rounds around `latency_s`, spread evenly, the prompts in turn.

    It is the median of all rounds exactly, and of each image's too where its rounds are even in number.

    `ssim` is that of the worst image, each further image being 0.01 closer to the reference's; None makes every
    image identical (a quality reference has no quality: it is what others are judged against). `ms_ssim` and `lpips`
    are those of every image that is not identical. `prompt_share` is that of the worst image, in which `wrong` is
    wrong; the others show all that was asked for. `diffs` are residual differences by step, each further image's
    0.01 more.
    Images are alike where `ssim` and `psnr_db` are.
    """
    images = [(p.id, seed) for p in of.workload.prompts for seed in of.workload.seeds]
    offsets = np.linspace(-spread, spread, n_rounds) if n_rounds > 1 else np.zeros(1)
    order = _mirrored(n_rounds, len(images))
    steps = of.pipeline.steps
    rounds: list[Request] = []
    for i in range(n_rounds):
        latency = float(latency_s * (1 + offsets[order[i]]))
        decode, text = 0.12 * latency_s, 0.02 * latency_s
        prompt_id, seed = images[i % len(images)]
        begun_s = rounds[-1].done_s if rounds else 0.0
        rounds.append(
            Request(
                index=i,
                trial_id=of.trial_id,
                role="baseline" if of.trial_id == of.reference.trial_id else "trial",
                prompt_id=prompt_id,
                seed=seed,
                due_s=begun_s,
                sent_s=begun_s,
                begun_s=begun_s,
                done_s=begun_s + latency,
                latency_s=latency,
                stages_s={"text_encode": text, "denoise": latency - decode - text, "decode": decode},
                steps_s=[(latency - decode - text) / steps] * steps,
                cached_steps=list(cached),
                residual_diffs=_diffs(cached, diffs, i % len(images)),
                text_tokens=[TEXT_TOKENS],
                image_sha256=hashlib.sha256(repr((prompt_id, seed, ssim, ssim and psnr_db)).encode()).hexdigest(),
            )
        )
    quality: list[ImageQuality] | None = [
        ImageQuality(prompt_id, seed, True, None, 1.0, 0.0, 1.0, None if lpips is None else 0.0)
        if ssim is None
        else ImageQuality(
            prompt_id,
            seed,
            False,
            psnr_db and psnr_db + i,
            min(ssim + 0.01 * i, 1.0),
            0.05 * (1 - ssim),
            ms_ssim,
            lpips,
        )
        for i, (prompt_id, seed) in enumerate(images)
    ]
    reasons: dict[str, str] = {}
    if of.trial_id == of.reference.trial_id and ssim is None:
        quality = None
        reasons["quality"] = "no_reference"
    if prompt_share is None:
        reasons["prompt_fidelity"] = "no_scene"
    if vram_gib is None:
        reasons |= {"memory.peak_device_bytes": "no_gpu", "energy": "no_gpu"}
    device = None if vram_gib is None else int(vram_gib * GIB)
    in_window = {key: changes.pop(key) for key in WINDOWS_OWN & set(changes)}
    window = Window(
        requests=rounds,
        stop_reason="interval",
        started_at="2026-01-01T00:00:00.000+00:00",
        wall_s=rounds[-1].done_s,
        memory=Memory(peak_device_bytes=device, host_peak_rss_bytes=int(1.2 * GIB)),
    )
    whole = Measurement(
        trial_id=of.trial_id,
        window=replace(window, **in_window),
        warmup_latencies_s=[latency_s * 1.2],
        cold=Cold(load_s=3.0, first_latency_s=latency_s * 2),
        sources={
            "latency": "measured",
            "memory": "measured",
            "cached_steps": "measured",
            "quality": "measured",
        },
        quality=quality,
        prompt_fidelity=None
        if prompt_share is None
        else [
            PromptFidelity(prompt_id, seed, 1.0 if i else prompt_share, [] if i or prompt_share == 1 else list(wrong))
            for i, (prompt_id, seed) in enumerate(images)
        ],
        effective=Effective(device="cpu" if device is None else "cuda", dtype="float32"),
        reasons=reasons,
    )
    return replace(whole, **changes)


def with_window(measured: Measurement | None, **changes: Any) -> Measurement:
    """`measured` with fields of its window replaced."""
    assert measured is not None
    return replace(measured, window=replace(measured.window, **changes))


def complete(of: Trial, **kwargs: Any) -> Record:
    """A COMPLETE record; keywords are those of `measurement`."""
    measured = measurement(of, **kwargs)
    return _record(of, state="COMPLETE", source=measured.source, measurement=measured)


def spoilt(measured: Measurement | None, *places: int, why: str = "black_image") -> Measurement:
    """`measured` with images of the requests in these places that are none; all of them where none is named."""
    assert measured is not None
    requests = [
        replace(r, valid=False, invalid_reasons=[why]) if not places or place in places else r
        for place, r in enumerate(measured.requests)
    ]
    return with_window(measured, requests=requests)


def of_invalid_images(of: Trial, *places: int, **kwargs: Any) -> Record:
    """A record that FAILED because images of it, those of requests in `places` or all, are none."""
    record = complete(of, **kwargs)
    return held_to_its_images(replace(record, measurement=spoilt(record.measurement, *places)))


def failed(of: Trial, code: str = "out_of_memory", message: str = "the worker was killed by the kernel") -> Record:
    """A FAILED record with a log's tail."""
    return _record(of, state="FAILED", reason=Reason(code, message, ("last line of the log",)))


def pruned(of: Trial, message: str = "parallel.ulysses_size=4 does not divide 30 heads") -> Record:
    """A PRUNED record."""
    return _record(of, state="PRUNED", reason=Reason("constraint", message))


def projected(record: Record, *, latency_s: float, vram_gib: float, hardware: str = "h100") -> Record:
    """The same record as a projection of zimage_turbo onto absent hardware."""
    assert record.measurement is not None
    shares = {f.name: 0.5 for f in fields(EfficiencyConfig) if f.name not in ("source", "spread")}
    efficiency = EfficiencyConfig(**shares, source="a test")
    profile = HardwareConfig(
        name=hardware, title="NVIDIA H100 80GB", memory_gib=80.0, datasheet="a datasheet", efficiency=efficiency
    )
    of = replace(Trial.from_dict(record.config), pipeline=TURBO, hardware=profile)
    images = list(dict.fromkeys((r.prompt_id, r.seed) for r in record.measurement.requests))
    projection = Projection(
        rounds=[ProjectedRound(p, s, latency_s * (1 + 0.01 * i)) for i, (p, s) in enumerate(images)],
        stages_s={
            "text_encode": 0.03 * latency_s,
            "decode": 0.1 * latency_s,
            "offload_transfer": 0.0,
            "overhead": 0.06 * latency_s,
        },
        computed_step_s=latency_s / 9,
        cached_step_s=latency_s / 90,
        peak_device_bytes=int(vram_gib * GIB),
        floor_s=latency_s / 3,
        assumptions=["GEMMs reach 0.72 of peak"],
    )
    changed = replace(
        record.measurement,
        projection=projection,
        sources={"latency": "projected", "memory": "projected", "cached_steps": "proxy", "quality": "proxy"},
    )
    return _record(of, state="COMPLETE", source="projected", measurement=changed)


def demo_records() -> list[Record]:
    """A sweep like the demo's: fourteen measured trials, one FAILED, one PRUNED."""
    base = trial()
    twice = [ImageQuality(p.id, seed, True, None, 1.0, 0.0, 1.0) for p in SCENES.prompts for seed in SCENES.seeds]
    records = [complete(base, latency_s=1.031, n_rounds=12, prompt_share=1.0, noise_floor=twice)]
    points = [  # cache, seconds, steps skipped, worst SSIM, lowest PSNR, worst share of a prompt
        (DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.12), 0.952, (4,), 0.981, 36.1, 1.0),
        (DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.24), 0.731, (3, 5, 6), 0.952, 29.4, 0.91),
        (DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.4), 0.538, (2, 3, 4, 6, 7), 0.861, 22.7, 0.82),
        (DBCacheConfig(residual_diff_threshold=0.12), 1.034, (), None, None, 1.0),
        (DBCacheConfig(residual_diff_threshold=0.24), 0.842, (5, 7), 0.971, 33.0, 1.0),
        (DBCacheConfig(residual_diff_threshold=0.4), 0.735, (4, 5, 7), 0.944, 28.1, 0.91),
        (_taylor(0.12, 1), 0.957, (4,), 0.984, 37.0, 1.0),
        (_taylor(0.24, 1), 0.739, (3, 5, 6), 0.961, 30.8, 1.0),
        (_taylor(0.4, 1), 0.549, (2, 3, 4, 6, 7), 0.883, 23.9, 0.91),
        (_scm("slow"), 0.846, (4, 6), 0.973, 33.9, 1.0),
        (_scm("medium"), 0.744, (3, 5, 6), 0.949, 28.9, 1.0),
        (_scm("fast"), 0.642, (2, 3, 5, 6), 0.921, 26.0, 0.91),
        (_scm("ultra"), 0.451, (2, 3, 4, 5, 6, 7), 0.801, 20.5, 0.64),
    ]
    records += [
        complete(
            trial(cache),
            latency_s=seconds,
            cached=cached,
            ssim=ssim,
            psnr_db=psnr,
            ms_ssim=None if ssim is None else (1 + ssim) / 2,
            prompt_share=share,
            diffs=_told(cache, cached),
        )
        for cache, seconds, cached, ssim, psnr, share in points
    ]
    records.append(failed(trial(DBCacheConfig(Fn_compute_blocks=5))))
    records.append(pruned(trial(DBCacheConfig(), parallel=ParallelConfig(ulysses_size=4))))
    return records


def demo_projection() -> list[Record]:
    """`demo_records` projected onto hardware that is not here."""
    records = [r for r in demo_records() if r.measurement is not None]
    latencies = [r.measurement.requests[0].latency_s for r in records if r.measurement is not None]
    return [projected(r, latency_s=t * 1.3, vram_gib=20.0) for r, t in zip(records, latencies, strict=True)]


def _diffs(cached: tuple[int, ...], diffs: Mapping[int, float] | None, image: int) -> dict[str, float]:
    if diffs is None:
        return {str(step): 0.1 for step in cached}
    return {str(step): diff + 0.01 * image for step, diff in diffs.items()}


def _told(cache: DBCacheConfig, cached: tuple[int, ...]) -> dict[int, float]:
    """Differences under the threshold where steps were skipped, above it where they were compared and were not."""
    limit, first = cache.residual_diff_threshold, cache.max_warmup_steps
    return {step: limit * (0.6 + 0.04 * step if step in cached else 1.2 + 0.1 * step) for step in range(first, STEPS)}


def _mirrored(n_rounds: int, n_images: int) -> list[int]:
    """Ranks of the rounds' latencies: each image, in turn, gets one from below and its mirror image from above."""
    if n_rounds % (2 * n_images):
        return [int(rank) for rank in np.random.default_rng(0).permutation(n_rounds)]
    pairs = [i // n_images // 2 * n_images + i % n_images for i in range(n_rounds)]
    return [n_rounds - 1 - p if i // n_images % 2 else p for i, p in enumerate(pairs)]


def _taylor(threshold: float, order: int) -> DBCacheConfig:
    return DBCacheConfig(
        max_warmup_steps=2,
        residual_diff_threshold=threshold,
        enable_taylorseer=True,
        taylorseer_order=order,
    )


def _scm(preset: str) -> SCMConfig:
    return SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_preset=preset)


def _record(of: Trial, **kwargs: Any) -> Record:
    return Record(
        sweep="demo",
        trial_id=of.trial_id,
        reference_id=of.reference.trial_id,
        baseline_id=of.reference.trial_id,
        label=of.label,
        command="zbench sweep cache=dbcache",
        config={**of.to_dict(), "measure": asdict(MeasureConfig())},
        environment=ENVIRONMENT,
        **kwargs,
    )
