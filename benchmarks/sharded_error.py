"""How far sharded latents are from float32's on one device, over how far bf16's on one device are.

`python benchmarks/sharded_error.py PIPELINE OVERRIDE [OVERRIDE…]`: the final latents of one prompt, for each of the
parallel settings, such as `parallel=gather` or `parallel=tp`. All need equally many devices: GPUs where there are
enough, else CPUs, where both are float32 and the ratio says nothing. Prints one JSON line a setting from rank 0, with
the share of the transformer's bytes that it holds.
"""

import copy
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from ranks import run_ranks
from torch.distributed.tensor import DTensor

from zbench.composition import expand
from zbench.engines.reference.calls import call_arguments
from zbench.engines.reference.pipeline import WEIGHTS_SEED
from zbench.engines.reference.ranks import RankWorld
from zbench.engines.reference.sharded import Sharded
from zbench.engines.reference.sharded.mesh import join
from zbench.engines.weights import resolve_weights
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial
from zbench.zimage.loading import load_pipeline

PROMPT, SEED = "a red circle on a blue ground", 3


def trial_of(pipeline: str, override: str) -> Trial:
    """The trial that `zbench run` would make of it."""
    base = [f"pipeline={pipeline}", "hardware=cpu", *override.split()]
    return Trial.from_config(expand(base, lambda _, __: "cpu", grids=False).jobs[0].config, projected=False)


def latents(pipe: Any, trial: Trial) -> torch.Tensor:
    """The final ones of one call, in float32 on the host."""
    with torch.no_grad():
        made = pipe(**call_arguments(trial.pipeline, PROMPT, SEED), output_type="latent").images
    return made.float().cpu()


def bytes_here(module: Any) -> int:
    """Of its parameters, what lies on this rank."""
    local = [each.to_local() if isinstance(each, DTensor) else each for each in module.parameters()]
    return sum(each.numel() * each.element_size() for each in local)


def measure(rank: int, pipeline: str, overrides: list[str], folder: str) -> None:
    """One rank."""
    trials = [trial_of(pipeline, override) for override in overrides]
    on_gpu = torch.cuda.device_count() >= ParallelDims.of(trials[0].parallel).devices
    device = f"cuda:{rank}" if on_gpu else "cpu"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    if on_gpu:
        torch.cuda.set_device(rank)
    torch.set_num_threads(1)

    def loaded() -> Any:
        checkpoint = resolve_weights(trials[0].pipeline).checkpoint
        return load_pipeline(checkpoint, dtype=dtype, device=device, on_host=(), seed=WEIGHTS_SEED)

    exact = native = torch.zeros(1)
    if rank == 0:
        pipe = loaded()
        native = latents(pipe, trials[0])
        wide = copy.copy(pipe)
        wide.transformer, wide.text_encoder = pipe.transformer.float(), pipe.text_encoder.float()
        exact = latents(wide, trials[0])
        del pipe, wide
        gc.collect()
    own = float((native - exact).norm() / exact.norm())
    for number, (override, trial) in enumerate(zip(overrides, trials, strict=True)):
        meeting = Path(folder) / str(number)
        meeting.mkdir(exist_ok=True)
        pipe = loaded()
        whole = bytes_here(pipe.transformer)
        mesh = join(RankWorld(rank, ParallelDims.of(trial.parallel), meeting), device)
        sharded = Sharded(pipe, trial, mesh)
        error = float((latents(pipe, trial) - exact).norm() / exact.norm()) if rank == 0 else latents(pipe, trial).sum()
        share = bytes_here(pipe.transformer) / whole
        sharded.close()
        mesh.leave()
        del pipe, sharded, mesh
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
        if rank == 0:
            told = {
                "setting": override,
                "device": device,
                "error": float(error),
                "one_device": own,
                "weights_share": share,
            }
            print(json.dumps(told | {"ratio": float(error) / own if own else None}), flush=True)


def main(pipeline: str, overrides: list[str]) -> int:
    """Start one process a rank; their exit code."""
    needed = {ParallelDims.of(trial_of(pipeline, override).parallel).devices for override in overrides}
    if len(needed) != 1:
        raise SystemExit(f"settings of {sorted(needed)} devices: all must take equally many")
    return run_ranks(measure, needed.pop(), pipeline, overrides)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
