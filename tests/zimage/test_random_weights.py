"""Claims about `zbench.zimage.random_weights`: thresholds mean something at any depth and seed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_images import DEFAULT_THRESHOLD, PROMPTS, cached_image

from zbench.zimage.layout import Checkpoint, preset_folder
from zbench.zimage.loading import load_pipeline


@pytest.mark.parametrize("seed", [5, 6])
def test_thresholds_mean_something_at_turbos_depth(tmp_path: Path, seed: int) -> None:
    """Thirty main blocks and two refiners, as in Z-Image-Turbo; the usual random weights give 0.75 at every step."""
    folder = Path(shutil.copytree(preset_folder("zimage_tiny"), tmp_path / "deep"))
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"n_layers": 30, "n_refiner_layers": 2}))
    pipeline = load_pipeline(Checkpoint(folder, "random"), dtype=torch.float32, device="cpu", seed=seed)
    _, diffs, _ = cached_image(pipeline, PROMPTS[0], threshold=1e-4, warmup=1)
    assert all(0.05 < diff < 0.5 for diff in diffs)
    assert min(diffs) < DEFAULT_THRESHOLD < max(diffs)
