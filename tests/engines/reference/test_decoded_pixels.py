"""The bytes that are made of pixels on the device are those of diffusers' picture."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from zbench.engines.reference.decoded import pixels_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_picture(dtype: torch.dtype) -> None:
    decoded = torch.linspace(-1.3, 1.3, 3 * 16 * 24).reshape(1, 3, 16, 24).to(dtype)
    processor = VaeImageProcessor()
    (picture,) = processor.postprocess(decoded, output_type="pil")
    (tensor,) = processor.postprocess(decoded, output_type="pt")
    assert np.array_equal(pixels_of(tensor), np.asarray(picture))
    assert pixels_of(tensor).shape == (16, 24, 3) and pixels_of(tensor).dtype == np.uint8
