"""Modules of a preset with weights to begin learning from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from zbench.zimage.components import build_module
from zbench.zimage.layout import WEIGHTS_FILE, Checkpoint


def new_modules(configs: Path, device: torch.device, seed: int) -> dict[str, nn.Module]:
    """`text_encoder`, `transformer` and `vae` in float32, the same for the same seed and kind of device.

    The transformer's gates and its last layer begin at zero (adaLN-zero; Peebles and Xie, 2022): every block is the
    identity and the first velocity is zero, so learning starts calmly.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        modules = {component: build_module(Checkpoint(configs), component) for component in WEIGHTS_FILE}
    modules["vae"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as its convolutions like it
    for name, parameter in modules["transformer"].named_parameters():
        if "adaLN_modulation" in name or ("all_final_layer" in name and "linear" in name):
            nn.init.zeros_(parameter)
    return modules
