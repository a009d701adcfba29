"""The call that every tool times here: one image by the bare tiny pipeline, as diffusers makes it."""

from collections.abc import Callable
from typing import Any

import torch

from zbench.config import PipelineConfig
from zbench.engines.reference import call_arguments
from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline

PROMPT = "a large red circle on a white background"
SIDE = 256


def bare_call() -> Callable[[], Any]:
    """A function that makes the image; the pipeline is loaded and nothing of zbench's is around it."""
    pipe = load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cpu")
    pipeline = PipelineConfig(
        name="zimage_tiny", preset="zimage_tiny", height=SIDE, width=SIDE, max_sequence_length=128
    )
    return lambda: pipe(**call_arguments(pipeline, PROMPT, 0)).images[0]
