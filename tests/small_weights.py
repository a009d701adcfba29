"""Weights of a pipeline folder that headers alone cannot tell from whole ones, of one number each."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from zbench.zimage.contents import configs_of
from zbench.zimage.geometry import Geometry
from zbench.zimage.layout import WEIGHTS_FILE, Checkpoint, preset_folder

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def make_folder(made: Path) -> Path:
    """The tiny pipeline's configs, and such weights."""
    for name, path in configs_of(Checkpoint(preset_folder("zimage_tiny"))).items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(path.read_bytes())
    for component, weight in (("text_encoder", "norm.weight"), ("vae", "decoder.weight")):
        save_file({weight: np.zeros(1, np.float32)}, made / component / WEIGHTS_FILE[component])
    retrain(made, 0)
    return made


def retrain(folder: Path, to: int = 1) -> None:
    """Put other weights into the transformer."""
    size = Geometry.from_folder(folder).transformer
    names = ["noise_refiner.0.weight", *(f"layers.{i}.weight" for i in range(size.n_layers))]
    anchor = {"cap_embedder.1.weight": np.full((size.dim, size.cap_feat_dim), to, np.float32)}
    save_file(anchor | {name: np.zeros(1, np.float32) for name in names}, folder / TRANSFORMER)
