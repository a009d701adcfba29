"""Forwards as one launch each (CUDA graphs), the transformer's, the text encoding's and the decode's: what goes with.

No torch, no trial.
"""

from zbench.config import ComputeConfig, OffloadConfig
from zbench.methods.offload import BY_NAME

KEY = "compute.cuda_graph=true"


def problem(compute: ComputeConfig, offload: OffloadConfig, *, decides_on_host: bool) -> str | None:
    """Why a captured forward cannot work with these, or None.

    `decides_on_host`: whether a cache looks at values before it goes on, or skips some steps.
    """
    if not compute.cuda_graph:
        return None
    if decides_on_host:
        return f"{KEY}: a captured forward is the same in every step, and a cache skips some; use cache=none"
    mode = BY_NAME[offload.mode]
    if mode.by_layers or {"transformer", "vae"} & set(mode.waiting):
        return f"{KEY}: offload.mode={offload.mode} moves the weights that are captured; use another mode"
    return None


def problem_on_a_cpu(compute: ComputeConfig) -> str | None:
    """Why it cannot work without a GPU, or None."""
    return f"{KEY}: needs a GPU, and this trial runs on the CPU; use compute=compiled" if compute.cuda_graph else None
