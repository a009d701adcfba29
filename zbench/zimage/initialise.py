"""Writes the tiny pipeline's weights and tokenizer from a seed; it trains nothing.

    python -m zbench.zimage.initialise [--out FOLDER] [--seed N]

The configs of the tiny preset are the input and stay as they are. Weights are those of `random_weights`, whose
docstring says how they are made so that images have structure, follow prompt and seed, and DBCache's thresholds fire on
some steps and not on others. They are stored as bf16 safetensors. The same seed, machine and library versions give the
same bytes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from zbench.zimage.layout import COMPONENTS, CONFIG_FILE, WEIGHTS_FILE, preset_folder
from zbench.zimage.tokenizer import build_tokenizer

PRESET = "zimage_tiny"


def initialise(out: Path, seed: int = 0) -> None:
    """Write a complete pipeline folder to `out`, which may be the preset's own folder."""
    from zbench.zimage.loading import load_pipeline

    _copy_configs(preset_folder(PRESET), out)
    build_tokenizer().save_pretrained(out / "tokenizer")
    pipeline = load_pipeline(out, dtype=torch.float32, device="cpu", weights="random", seed=seed)
    for component, name in WEIGHTS_FILE.items():
        tensors = {
            key: tensor.to(torch.bfloat16).contiguous()
            for key, tensor in getattr(pipeline, component).state_dict().items()
        }
        save_file(tensors, out / component / name, metadata={"format": "pt"})


def _copy_configs(preset: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    names = ["model_index.json"] + [f"{c}/{CONFIG_FILE[c]}" for c in COMPONENTS if c != "tokenizer"]
    for name in names:
        target = out / name
        target.parent.mkdir(exist_ok=True)
        if target.resolve() != (preset / name).resolve():
            shutil.copyfile(preset / name, target)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zbench.zimage.initialise", description=initialise.__doc__)
    parser.add_argument("--out", type=Path, default=preset_folder(PRESET), help="folder to write (the preset itself)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    initialise(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
