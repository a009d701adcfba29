"""An image as the bytes of a file, in the quality that was asked for; a png is packed fast rather than small."""

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


PNG_LEVEL = 1
"""Of zlib's nine. With Pillow's own, 6, a picture of 1024×1024 takes five times as long, for a sixth less bytes. Noise
takes as long at any level."""


def encoded(image: NDArray[np.uint8], output_format: str, quality: int | None) -> str:
    """Base64 of an image, height × width × 3, as png, jpeg or webp. A png holds the very pixels."""
    from PIL import Image

    lossy = {"quality": QUALITY if quality is None else quality}
    how: dict[str, Any] = {"compress_level": PNG_LEVEL} if output_format == "png" else lossy
    out = io.BytesIO()
    Image.fromarray(image).save(out, FORMATS[output_format], **how)
    return base64.b64encode(out.getvalue()).decode("ascii")
