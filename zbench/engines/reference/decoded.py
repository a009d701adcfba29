"""What the VAE decoded, while it is still numbers: diffusers clamps it and makes bytes of it, in which NaN is 0."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zbench.zimage.fast.transfer import received

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Decoded:
    """The pixels of the latest call, all its images; nothing is asked of the device before the call is over."""

    def __init__(self, pipe: Any) -> None:
        """Looks on where `pipe` hands them to its image processor, until `close`."""
        self._processor = pipe.image_processor
        self._pixels: list[torch.Tensor] = []
        postprocess = self._processor.postprocess

        def seen(image: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._pixels.append(image)
            return postprocess(image, *args, **kwargs)

        self._processor.postprocess = seen

    def reset(self) -> None:
        """Forget those of a call that failed."""
        self._pixels.clear()

    def take_finite(self) -> list[bool]:
        """Of each image whether it is finite numbers; they are let go of, so that the next call finds none held."""
        pixels, self._pixels = self._pixels, []
        return [bool(torch.isfinite(image).all()) for images in pixels for image in images]

    def close(self) -> None:
        """Look away."""
        del self._processor.postprocess


def pixels_of(images: torch.Tensor) -> "list[NDArray[np.uint8]]":
    """Of each image height × width × 3 in host memory, of images × 3 × height × width from 0 to 1.

    The bytes are those that diffusers gives as a PIL image, made on the device: there it takes 1 ms, on a host 20. They
    come into page-locked memory, which is the arrays' own, all in one copy that is waited for.
    """
    rounded = (images.float() * 255).round().to(torch.uint8)
    return list(received(rounded.permute(0, 2, 3, 1).contiguous()).numpy())
