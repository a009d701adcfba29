"""The bytes that are made of pixels on the device are those of diffusers' picture."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from zbench.engines.reference.decoded import pixels_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_picture(dtype: torch.dtype) -> None:
    decoded = torch.linspace(-1.3, 1.3, 2 * 3 * 16 * 24).reshape(2, 3, 16, 24).to(dtype)
    processor = VaeImageProcessor()
    pictures = processor.postprocess(decoded, output_type="pil")
    made = pixels_of(processor.postprocess(decoded, output_type="pt"))
    assert len(made) == 2
    for pixels, picture in zip(made, pictures, strict=True):
        assert np.array_equal(pixels, np.asarray(picture))
        assert pixels.shape == (16, 24, 3) and pixels.dtype == np.uint8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_bytes_of_a_gpu_have_arrived_and_are_not_written_again() -> None:
    """The page-locked memory of an image that is held is no later image's."""
    first, *_ = [pixels_of(torch.full((1, 3, 512, 512), value, device="cuda"))[0] for value in (0.2, 0.4, 0.6)]
    assert (first == 51).all()
