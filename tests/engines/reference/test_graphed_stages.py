"""Text encoding and decode as one launch each, short, laid out and compiled beneath; needs a GPU."""

from typing import Any

import pytest
import torch

from zbench.engines.reference.graphed import GraphedForward
from zbench.zimage.fast.ahead import run_ahead
from zbench.zimage.fast.decode import speed_decode
from zbench.zimage.fast.text import shorten_text
from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

TOLERANCE = 1e-4
"""Of pixels from 0 to 1: among the convolutions that cuDNN tries are some that round more than others."""
PROMPTS = ("a red circle", "a blue square on the left " * 15)


@pytest.fixture
def pipe() -> Any:
    """In float32, and without TF32."""
    torch.backends.cudnn.allow_tf32 = False
    yield load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cuda")
    torch.backends.cudnn.allow_tf32 = True
    torch.compiler.reset()


def image(pipe: Any, prompt: str, side: int) -> torch.Tensor:
    made: torch.Tensor = pipe(
        prompt,
        height=side,
        width=side,
        num_inference_steps=2,
        guidance_scale=0.0,
        generator=[torch.Generator().manual_seed(0)],
        output_type="pt",
    ).images
    return made


@pytest.mark.parametrize("compiled", [False, True])
def test_graphs_of_sped_stages_make_the_same_image(pipe: Any, compiled: bool) -> None:
    asked = [(prompt, side) for prompt in PROMPTS for side in (64, 96)]
    own = [image(pipe, *one) for one in asked]
    undos = [
        shorten_text(pipe, compiled=compiled),
        speed_decode(pipe.vae, "compiled" if compiled else "channels_last"),
        run_ahead(pipe),
    ]
    pool = torch.cuda.graph_pool_handle()
    graphed = [GraphedForward(module, pool) for module in (pipe.text_encoder, pipe.vae.decoder)]
    for _ in range(2):
        for one, expected in zip(asked, own, strict=True):
            assert float((image(pipe, *one) - expected).abs().max()) <= TOLERANCE
    assert [each.count for each in graphed] == [2, 2]  # buckets, sizes
    for each in graphed:
        each.close()
    for undo in reversed(undos):
        undo()
    assert torch.allclose(image(pipe, *asked[0]), own[0], atol=TOLERANCE)


def test_the_host_does_not_wait_for_texts_or_noise(pipe: Any) -> None:
    """torch raises where something would."""
    undos = [shorten_text(pipe, compiled=False), run_ahead(pipe)]
    image(pipe, PROMPTS[0], 64)
    torch.cuda.set_sync_debug_mode("error")
    try:
        image(pipe, PROMPTS[0], 64)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        for undo in reversed(undos):
            undo()
