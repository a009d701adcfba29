"""State of a training phase on disk: tensors as safetensors, everything else as their metadata; nothing is pickled."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class TrainingCheckpoint:
    """Models, their averages and an optimiser's moments under one file, written whole or not at all."""

    def __init__(self, path: Path, models: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.path, self.models, self.optimizer = path, models, optimizer

    def save(self, step: int) -> None:
        """Keep the state after `step` steps."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors().items()}
        save_file(tensors, partial, metadata={"step": str(step)})
        os.replace(partial, self.path)

    def load(self) -> int:
        """Restore the state if there is one; the number of steps it had done, 0 without one."""
        if not self.path.is_file():
            return 0
        with safe_open(self.path, framework="pt") as file:
            step = int(file.metadata()["step"])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        for i, parameter in enumerate(self._learned()):
            prefix = f"optimizer.{i}."
            state = {
                name.removeprefix(prefix): tensor.to(parameter.device)  # a fused optimiser counts its steps there too
                for name, tensor in stored.items()
                if name.startswith(prefix)
            }
            if state:
                self.optimizer.state[parameter] = state
        for name, model in self.models.items():
            prefix = f"model.{name}."
            model.load_state_dict({k.removeprefix(prefix): t for k, t in stored.items() if k.startswith(prefix)})
        return step

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {
            f"model.{name}.{key}": tensor
            for name, model in self.models.items()
            for key, tensor in model.state_dict().items()
        }
        for i, parameter in enumerate(self._learned()):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{i}.{key}"] = torch.as_tensor(value)
        return tensors

    def _learned(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]
