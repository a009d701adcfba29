"""An image as the bytes of a file; Pillow's own defaults, but for the quality that was asked for."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from zbench.serving.protocol import FORMATS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUALITY = 95
"""Of jpeg and webp, where nobody asked for another."""


def encoded(image: NDArray[np.uint8], output_format: str, quality: int | None) -> str:
    """Base64 of an image, height × width × 3, as png, jpeg or webp. A png holds the very pixels."""
    from PIL import Image

    how: dict[str, Any] = {} if output_format == "png" else {"quality": QUALITY if quality is None else quality}
    out = io.BytesIO()
    Image.fromarray(image).save(out, FORMATS[output_format], **how)
    return base64.b64encode(out.getvalue()).decode("ascii")
