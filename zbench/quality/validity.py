"""Whether an image is one at all: what a pipeline that overflowed leaves behind. It judges no scene and no likeness.

NaN is no byte. diffusers makes 0 of it, so that such an image is black; an infinite value is clamped to white, which
only who decoded it can tell from a white page. So an image is refused where every byte is 0. Another colour all over
may be what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def image_faults(images: Iterable[NDArray[np.uint8]], latents: NDArray[np.float32] | None) -> list[str]:
    """Of `measurement.SPOILS_IMAGES` what is seen of images (height × width × 3, RGB), and of the latents of any."""
    import numpy as np

    pictures = list(images)
    seen = {
        "non_finite_latents": latents is not None and not np.isfinite(latents).all(),
        "non_finite_image": any(image.dtype.kind == "f" and not np.isfinite(image).all() for image in pictures),
        "black_image": any(not image.any() for image in pictures),
    }
    return [name for name, is_so in seen.items() if is_so]


def is_of_one_colour(image: NDArray[np.uint8]) -> bool:
    """Whether every pixel is like the first."""
    return bool((image == image[:1, :1]).all())
