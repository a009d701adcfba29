"""Fused layers wait in host memory and come from there as plain ones do; here the device is the host itself."""

import copy
import os
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import OffloadConfig
from zbench.engines.reference.offloading import Offloading
from zbench.zimage.fast.attention import fuse_attention
from zbench.zimage.fast.feed_forward import fuse_feed_forward
from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline

STEPS = 2


@pytest.fixture(scope="module")
def loaded(one_thread: None) -> Any:
    return load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cpu")


def made(loaded: Any, mode: str, fused: bool) -> tuple[NDArray[Any], int]:
    """An image, and the bytes of the transformer that were moved for it."""
    pipe = copy.copy(loaded)
    for part in ("transformer", "text_encoder", "vae"):
        setattr(pipe, part, copy.deepcopy(getattr(loaded, part)))
    if fused:
        fuse_attention(pipe.transformer, qkv=True, rope=True)
        fuse_feed_forward(pipe.transformer)
    offloading = Offloading(pipe, OffloadConfig(mode=mode), "cpu")
    drawn = torch.Generator().manual_seed(3)
    said = {"height": 64, "width": 64, "num_inference_steps": STEPS, "guidance_scale": 0.0, "output_type": "np"}
    image = pipe(prompt="a large red circle on a white background", generator=drawn, **said).images[0]
    return image, (offloading.moved_bytes or {}).get("transformer", 0)


@pytest.mark.parametrize("mode", ["dit", "all", "group"])
def test_fused_weights_move_as_plain_ones_and_make_their_image(loaded: Any, mode: str) -> None:
    """As many bytes, but for the padding between tensors; not one weight is moved a second time."""
    plain, moved = made(loaded, mode, fused=False)
    image, moved_fused = made(loaded, mode, fused=True)
    np.testing.assert_allclose(image, plain, rtol=0, atol=1e-5)
    assert moved_fused == pytest.approx(moved, rel=1e-3) and moved_fused > 1e6


def test_every_fused_weight_comes_by_its_own_layers_hook(loaded: Any) -> None:
    """As sequential offloading has it, by accelerate's hooks; not one weight is used without them."""
    from accelerate import cpu_offload

    transformer = copy.deepcopy(loaded.transformer)
    fuse_attention(transformer, qkv=True, rope=True)
    fuse_feed_forward(transformer)
    x, text = torch.randn(1, 16, 1, 16, 16), torch.randn(9, transformer.config.cap_feat_dim)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            there: torch.Tensor = transformer([x[0]], torch.tensor([0.5]), [text], return_dict=False)[0][0]
        return there

    expected = forward()
    cpu_offload(transformer, execution_device=torch.device("cpu"))
    assert all(layer.attention.to_qkv.weight.is_meta for layer in transformer.layers)
    torch.testing.assert_close(forward(), expected)
