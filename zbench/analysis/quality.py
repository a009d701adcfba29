"""What the judgements of a trial's images come to, mean and worst; the names are TrialSummary's fields.

Refuses to call a difference one that the baseline shows between two runs of itself: such a trial is `within_noise`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from zbench.measurement import ImageQuality, Measurement


def quality_figures(measurement: Measurement, baseline: Measurement | None) -> dict[str, Any]:
    """Fields of TrialSummary. `baseline` is the trial's own: its noise floor is what the images are held against."""
    quality = measurement.quality or []
    prompts = measurement.prompt_fidelity or []
    floor = baseline.noise_floor if baseline is not None else None
    return {
        "identical_images": sum(q.identical for q in quality) if quality else None,
        "compared_images": len(quality) if quality else None,
        "within_noise": bool(quality and floor and _within(quality, floor)),
        **_mean_and_least("psnr_mean_db", "psnr_worst_db", (q.psnr_db for q in quality)),
        **_mean_and_least("ssim_mean", "ssim_worst", (q.ssim for q in quality)),
        **_mean_and_least("ms_ssim_mean", "ms_ssim_worst", (q.ms_ssim for q in quality)),
        **_mean_and_most("latent_rel_error", "latent_rel_error_worst", (q.latent_rel_error for q in quality)),
        **_mean_and_most("lpips_mean", "lpips_worst", (q.lpips for q in quality)),
        **_mean_and_least("prompt_fidelity_mean", "prompt_fidelity_worst", (p.share_right for p in prompts)),
        **_mean_and_least("clip_mean", "clip_worst", (p.clip_score for p in prompts)),
        **_noise(measurement.noise_floor or []),
    }


def mean(values: Iterable[float | None]) -> float | None:
    """Of the known ones; None where there are none."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _within(quality: Sequence[ImageQuality], floor: Sequence[ImageQuality]) -> bool:
    """Whether each image is at least as like the baseline's as the floor's worst, by SSIM and by PSNR."""
    ssim, psnr_db = min(q.ssim for q in floor), min(_decibels(q) for q in floor)
    return all(q.ssim >= ssim and _decibels(q) >= psnr_db for q in quality)


def _decibels(quality: ImageQuality) -> float:
    """Infinite for an identical pair of images; NaN, which no bound holds for, where it is unknown."""
    if quality.identical:
        return math.inf
    return math.nan if quality.psnr_db is None else quality.psnr_db


def _noise(floor: Sequence[ImageQuality]) -> dict[str, Any]:
    return {
        "noise_identical": all(q.identical for q in floor) if floor else None,
        "noise_ssim_worst": min((q.ssim for q in floor), default=None),
        "noise_psnr_worst_db": min((q.psnr_db for q in floor if q.psnr_db is not None), default=None),
    }


def _mean_and_least(mean_name: str, worst_name: str, values: Iterable[float | None]) -> dict[str, float | None]:
    known = [v for v in values if v is not None]
    return {mean_name: mean(known), worst_name: min(known, default=None)}


def _mean_and_most(mean_name: str, worst_name: str, values: Iterable[float | None]) -> dict[str, float | None]:
    known = [v for v in values if v is not None]
    return {mean_name: mean(known), worst_name: max(known, default=None)}
