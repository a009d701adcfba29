"""What the judgements of a trial's images come to beside the registry's figures; it reads no image.

Refuses to call a difference one that the reference shows between two runs of itself: such a trial is within noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zbench.analysis.metrics import IDENTICAL_DB, psnr_db
from zbench.measurement import ImageQuality, Measurement

NOISE_SLACK = 4.0
"""How many times the error of the floor's worst image an honest trial may have."""

UNKNOWN_FLOOR_SSIM = 0.99
"""Where the reference was not made twice, an image that should be its own has at least this likeness."""


@dataclass(frozen=True)
class Likeness:
    """How a trial's images stand to its reference's, and a reference's to its own made once more."""

    identical_images: int | None = None
    compared_images: int | None = None
    within_noise: bool = False  # no image differs more than the reference's own do when they are made twice
    noise_identical: bool | None = None  # of a reference: whether its images made once more are the same
    noise_ssim_worst: float | None = None
    noise_psnr_worst_db: float | None = None  # of the images that are not identical


def likeness(measurement: Measurement, reference: Measurement | None) -> Likeness:
    """`reference` is the trial's own: its noise floor is what the images are held against."""
    quality, own_floor = measurement.quality or [], measurement.noise_floor or []
    floor = reference.noise_floor if reference is not None else None
    return Likeness(
        identical_images=sum(q.identical for q in quality) if quality else None,
        compared_images=len(quality) if quality else None,
        within_noise=bool(quality and floor and is_within(quality, floor)),
        noise_identical=all(q.identical for q in own_floor) if own_floor else None,
        noise_ssim_worst=min((q.ssim for q in own_floor), default=None),
        noise_psnr_worst_db=min((q.psnr_db for q in own_floor if q.psnr_db is not None), default=None),
    )


def is_within(quality: Sequence[ImageQuality], floor: Sequence[ImageQuality], slack: float = 1.0) -> bool:
    """Whether each image is at least as like the reference's as the floor's worst, by SSIM and by PSNR.

    With `slack` its error may be so many times that of the floor's worst: what SSIM lacks to 1, and the squared error.
    """
    known = [psnr_db(q) for q in floor]
    if any(db is None for db in known):
        return False
    least_db = min(db for db in known if db is not None)
    least_ssim = min(q.ssim for q in floor)
    if least_db < IDENTICAL_DB:  # a reference that makes the same image twice leaves no slack
        least_db, least_ssim = least_db - 10 * math.log10(slack), 1 - slack * (1 - least_ssim)
    return all(q.ssim >= least_ssim and (db := psnr_db(q)) is not None and db >= least_db for q in quality)


def is_its_own_reference(measurement: Measurement, reference: Measurement) -> bool:
    """Whether images that should be the reference's are: within its noise floor, or nearly where it has none.

    The floor is one draw of the noise and the trial another, so that half of all honest trials lie just below it: only
    what is clearly worse is none of the reference's.
    """
    quality = measurement.quality or []
    if reference.noise_floor:
        return is_within(quality, reference.noise_floor, slack=NOISE_SLACK)
    return all(q.identical or q.ssim >= UNKNOWN_FLOOR_SSIM for q in quality)
