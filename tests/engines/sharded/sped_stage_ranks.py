"""One of two processes that share texts and decode, as `rank_start` runs it; it leaves what it saw."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import torch
import torch.distributed as dist
from decode_ranks import decoded, four_levels, latents
from torch._dynamo.utils import counters
from torch.distributed.device_mesh import init_device_mesh

from zbench.engines.reference.sharded.decode import split_decode
from zbench.engines.reference.sharded.patches import Patches
from zbench.engines.reference.sharded.stack import split_text_encoder
from zbench.zimage.fast import shapes
from zbench.zimage.fast.decode import speed_decode
from zbench.zimage.fast.text import shorten_text
from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline

PROMPTS = ("a red circle", "a blue square on the left " * 15)


def split_and_sped(group: Any) -> dict[str, float]:
    """By mode and case the largest difference from what one process decodes."""
    told = {}
    for mode in ("channels_last", "compiled"):
        for case in ("square", "odd", "wide"):
            vae = four_levels()
            given = latents(vae, case)
            own = decoded("", vae, given)
            handle, undo = split_decode(vae, group), speed_decode(vae, mode)
            told[f"{mode}-{case}"] = float((decoded("", vae, given) - own).abs().max() / own.abs().max())
            undo()
            handle.close()
            assert torch.equal(decoded("", vae, given), own)
    return told


@torch.no_grad()
def split_and_short(mesh: Any) -> dict[str, float]:
    """The largest difference of states from those of one process, relative to the largest of these."""
    pipe = load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cpu")
    own, _ = pipe.encode_prompt(list(PROMPTS), "cpu", False)
    split_text_encoder(pipe.text_encoder, mesh)
    told = {}
    for compiled in (False, True):
        undo = shorten_text(pipe, compiled=compiled)
        made, _ = pipe.encode_prompt(list(PROMPTS), "cpu", False)
        undo()
        differences = [(a - b).abs().max() / b.abs().max() for a, b in zip(made, own, strict=True)]
        told[f"compiled={compiled}"] = float(max(differences))
    return told


def main(folder: Path, rank: int, ranks: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    shapes.BACKEND = "eager"  # what Dynamo finds runs as it is
    patches = Patches("cpu")
    told: dict[str, Any] = {"decode": split_and_sped(dist.group.WORLD), "graphs": counters["stats"]["unique_graphs"]}
    mesh = SimpleNamespace(world_size=ranks, whole=lambda: init_device_mesh("cpu", (ranks,)))
    told["text"] = split_and_short(mesh)
    told["breaks"] = len(counters["graph_break"])
    patches.close()
    (folder / f"{rank}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()
