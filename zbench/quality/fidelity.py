"""Likeness of an image to the reference's of the same prompt and seed; it does not say which of them is better."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from zbench.measurement import OTHER_REFERENCE, Effective, ImageQuality
from zbench.quality.artifacts import Artifact, contents, read_artifact
from zbench.quality.perceptual import Lpips

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PEAK = 255.0
"""Largest value of an 8-bit channel."""
LEAST_MS_SSIM_SIDE = 161
"""Pixels; a smaller image has no fifth scale for an 11-pixel window."""


def psnr_db(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """10·log10(255² / mean squared error over all channels); None for identical images, where it is infinite."""
    import numpy as np

    mean_squared_error = float(np.mean((image.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return None if mean_squared_error == 0 else 10 * math.log10(PEAK**2 / mean_squared_error)


def ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Mean structural similarity over channels (Wang et al. 2004), scikit-image's with its 7×7 window."""
    from skimage.metrics import structural_similarity

    pair = (image.astype("float32"), reference.astype("float32"))  # as exact as needed, and quicker than float64
    return float(structural_similarity(*pair, channel_axis=-1, data_range=PEAK))


def ms_ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """Structural similarity over five scales (Wang et al. 2003), pytorch-msssim's; None under 161 pixels a side."""
    if min(image.shape[:2]) < LEAST_MS_SSIM_SIDE:
        return None
    import torch
    from pytorch_msssim import ms_ssim as of_batches

    batches = [torch.tensor(picture).permute(2, 0, 1)[None].float() for picture in (image, reference)]
    return float(of_batches(*batches, data_range=PEAK))


def latent_rel_error(latents: NDArray[np.float32], reference: NDArray[np.float32]) -> float | None:
    """‖latents − reference‖ / ‖reference‖; None where that is no finite number or the shapes differ."""
    import numpy as np

    if latents.shape != reference.shape:
        return None
    norm = float(np.linalg.norm(reference.astype(np.float64)))
    error = float(np.linalg.norm(latents.astype(np.float64) - reference.astype(np.float64)))
    ratio = error / norm if norm > 0 else math.nan
    return ratio if math.isfinite(ratio) else None


def compare(made: Artifact, reference: Artifact, lpips: Lpips | None = None) -> ImageQuality:
    """Likeness of one image to another. Raises ValueError if the images differ in size."""
    import numpy as np

    if made.image.shape != reference.image.shape:
        raise ValueError(f"{made.prompt_id}: image is {made.image.shape}, the reference's is {reference.image.shape}")
    identical = bool(np.array_equal(made.image, reference.image))
    both = made.latents is not None and reference.latents is not None
    return ImageQuality(
        prompt_id=made.prompt_id,
        seed=made.seed,
        identical=identical,
        psnr_db=None if identical else psnr_db(made.image, reference.image),
        ssim=1.0 if identical else ssim(made.image, reference.image),
        latent_rel_error=latent_rel_error(made.latents, reference.latents) if both else None,  # type: ignore[arg-type]
        ms_ssim=1.0 if identical else ms_ssim(made.image, reference.image),
        lpips=None if lpips is None else lpips(made.image, reference.image),
    )


def compare_all(
    made: Sequence[Artifact], references: Sequence[Artifact], lpips: Lpips | None = None
) -> list[ImageQuality]:
    """Likeness of each image to its reference, on all cores. Raises ValueError as `compare` does."""
    with _torch_on_one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compare, made, references, repeat(lpips)))


def compare_with_folder(
    made: Sequence[Artifact], reference_folder: Path, lpips: Lpips | None = None, made_by: Effective | None = None
) -> tuple[list[ImageQuality] | None, str | None]:
    """Likeness of every image the reference also has, or None and why: no_reference, unreadable_reference or one of
    OTHER_REFERENCE, where the reference's images are known to be of another content than `made_by`'s."""
    differs = contents(reference_folder).effective.differs_in_content(made_by or Effective())
    if differs is not None:
        return None, OTHER_REFERENCE[differs]
    try:
        found = [(a, read_artifact(reference_folder, a.prompt_id, a.seed)) for a in made]
        pairs = [(artifact, reference) for artifact, reference in found if reference is not None]
        qualities = compare_all([a for a, _ in pairs], [reference for _, reference in pairs], lpips)
    except (OSError, ValueError):
        return None, "unreadable_reference"
    return (qualities, None) if qualities else (None, "no_reference")


@contextmanager
def _torch_on_one_thread() -> Iterator[None]:
    """Images are what runs side by side here; threads within one cost more than they save. Imports no torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
