"""A small pipeline of the official geometry's kind, saved in the official layout with its weights in shards."""

import json
import shutil
from pathlib import Path

from zbench.zimage.layout import preset_folder


def save_in_shards(folder: Path, seed: int = 0, shard_size: str = "400KB") -> Path:
    """Two main blocks and eight-fold smaller parts, all random from `seed`; a few MB. Returns `folder`."""
    import diffusers
    import torch
    import transformers

    tiny = preset_folder("zimage_tiny")
    for name in ("scheduler", "tokenizer"):
        shutil.copytree(tiny / name, folder / name)
    shutil.copy(tiny / "model_index.json", folder)

    def config(component: str, **changes: object) -> dict[str, object]:
        return {**json.loads((tiny / component / "config.json").read_text()), **changes}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        small = config("transformer", n_layers=2, n_refiner_layers=1)
        transformer = diffusers.ZImageTransformer2DModel.from_config(small)
        vae = diffusers.AutoencoderKL.from_config(
            config("vae", block_out_channels=[16, 16, 16, 16], norm_num_groups=8, layers_per_block=1)
        )
        encoder = transformers.Qwen3Model(transformers.Qwen3Config(**config("text_encoder")))
    transformer.save_pretrained(folder / "transformer", max_shard_size=shard_size)
    encoder.save_pretrained(folder / "text_encoder", max_shard_size=shard_size)
    vae.save_pretrained(folder / "vae")
    return folder
