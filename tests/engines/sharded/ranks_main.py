"""One rank of the test, as `rank_start` runs it: the cases of FOLDER/cases.json, one mesh after another.

A case that needs fewer ranks leaves the last ones idle. What a rank made lies in FOLDER as NAME.RANK.npy and .json.
"""

import copy
import faulthandler
import json
import os
import shutil
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

import numpy as np
import torch
from rank_cases import NEGATIVE, PROMPT, SEED, trial_of

from zbench.engines.reference.caching import CacheSwitch
from zbench.engines.reference.calls import call_arguments
from zbench.engines.reference.offloading import Offloading
from zbench.engines.reference.ranks import RankWorld
from zbench.engines.reference.sharded import Sharded
from zbench.engines.reference.sharded.mesh import join
from zbench.methods.parallel import ParallelDims
from zbench.zimage.fast.attention import fuse_attention
from zbench.zimage.fast.feed_forward import fuse_feed_forward
from zbench.zimage.layout import Checkpoint, preset_folder
from zbench.zimage.loading import load_pipeline


def made(pipe: Any, case: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Latents, and what the cache said."""
    trial = trial_of(case)
    cache = CacheSwitch(pipe)
    cache.set(trial.cache, trial.pipeline.steps)
    negative = NEGATIVE if trial.pipeline.guidance_scale > 0 else ""
    arguments = call_arguments(trial.pipeline, PROMPT, SEED, case.get("negative", negative))
    latents: list[torch.Tensor] = []

    def keep(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents[:] = [tensors["latents"]]
        return {}

    pipe(**arguments, callback_on_step_end=keep, output_type="np" if decodes(case) else "latent")
    skipped, differences = cache.statistics()
    cache.off()
    return latents[0].numpy(), {"cached": skipped, "diffs": differences}


def decodes(case: dict[str, Any]) -> bool:
    """Once a topology, and where what moves or shares the decode is asked for: it takes as long as all steps."""
    if "offload" in case or "vae" in case.get("parallel", {}):
        return True
    return bool(case["name"] == case["topology"] and case.get("cache", "plain") == "plain")


class Meetings:
    """The mesh of the case that runs; cases of one topology that follow one another meet once."""

    def __init__(self, rank: int, folder: Path) -> None:
        self._rank, self._folder, self._meeting = rank, folder, ""
        self._mesh: Any = None

    def mesh(self, dims: ParallelDims, meeting: str) -> Any:
        """None where one rank is alone; `meeting` is a name that this topology's cases share."""
        if meeting != self._meeting:
            self.leave()
            self._meeting = meeting
            if dims.ranks > 1:
                place = self._folder / meeting
                place.mkdir(exist_ok=True)
                self._mesh = join(RankWorld(self._rank, dims, place), "cpu")
        return self._mesh

    def leave(self) -> None:
        self._meeting = ""
        if self._mesh is not None:
            self._mesh.leave()
            self._mesh = None


def run(case: dict[str, Any], base: Any, rank: int, folder: Path, meetings: Meetings) -> None:
    """All caches of one case."""
    trial = trial_of(case)
    dims = ParallelDims.of(trial.parallel)
    if rank >= dims.ranks:
        return
    base = base if "heads" not in case else loaded(with_heads(folder / f"heads{case['heads']}.{rank}", case["heads"]))
    pipe = copy.copy(base)
    for part in ("transformer", "text_encoder", "vae"):
        setattr(pipe, part, copy.deepcopy(getattr(base, part)))
    sharded, undoes = None, []
    mesh = meetings.mesh(dims, case["meeting"])
    try:
        pipe.transformer.set_attention_backend(trial.compute.attention_backend)  # of later pipelines too, by diffusers
        if mesh is not None:
            sharded = Sharded(pipe, trial, mesh)
        undoes = fused(pipe.transformer, case.get("fused", ""))
        if trial.compute.compile:  # traced, which shows that blocks are whole; generating code would take long
            whole = sharded is None or sharded.compiles_whole
            pipe.transformer.compile_repeated_blocks(fullgraph=whole, backend=case.get("backend", "eager"))
        Offloading(pipe, trial.offload, "cpu")
        for cache in case.get("caches", ["plain"]):
            latents, said = made(pipe, {**case, "cache": cache})
            write(folder, f"{case['name']}-{cache}.{rank}", latents, said)
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        write(folder, f"{case['name']}-error.{rank}", np.zeros(0), said)
    finally:
        while undoes and case.get("again"):  # nobody else takes one that was offloaded
            undoes.pop()()
        if sharded is not None:
            sharded.close()
        if trial.compute.compile:
            torch.compiler.reset()
    if case.get("again"):  # alone, with the pipeline that was shared
        meetings.leave()
        write(folder, f"{case['name']}-closed.{rank}", *made(pipe, case))


def fused(transformer: Any, asked: str) -> list[Any]:
    """Fuse what is asked for, of qkv, rope and ffn; how to undo it."""
    undoes = [fuse_attention(transformer, qkv="qkv" in asked, rope="rope" in asked)] if asked else []
    return [*undoes, fuse_feed_forward(transformer)] if "ffn" in asked else undoes


def loaded(folder: Path) -> Any:
    return load_pipeline(Checkpoint(folder, weights="random"), dtype=torch.float32, device="cpu")


def with_heads(place: Path, heads: int) -> Path:
    """The tiny preset with so many heads of the same width."""
    if not place.exists():
        shutil.copytree(preset_folder("zimage_tiny"), place)
        config = place / "transformer" / "config.json"
        said = json.loads(config.read_text())
        width = said["dim"] // said["n_heads"]
        config.write_text(json.dumps({**said, "n_heads": heads, "n_kv_heads": heads, "dim": heads * width}))
    return place


def write(folder: Path, name: str, latents: np.ndarray, said: dict[str, Any]) -> None:
    np.save(folder / f"{name}.npy", latents)
    (folder / f"{name}.json").write_text(json.dumps(said))


def main(folder: Path, rank: int, ranks: int) -> None:
    """All cases; `ranks` is how many there are at most."""
    torch.set_num_threads(1)
    faulthandler.enable()
    cases = json.loads((folder / "cases.json").read_text())
    meetings = Meetings(rank, folder)
    base = loaded(preset_folder("zimage_tiny"))
    for case in cases:
        began = time.perf_counter()
        run(case, base, rank, folder, meetings)
        print(rank, case["name"], round(time.perf_counter() - began, 2), flush=True)
    meetings.leave()
