"""Whether safetensors files hold the weights of a module, by name and shape; it reads headers, never a tensor."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from zbench.zimage.layout import WeightsError, one_line

LM_HEAD = "lm_head.weight"
"""In checkpoints of a whole language model; the pipeline reads hidden states and has no use for it."""


def check_tensors(module: nn.Module, files: list[Path]) -> None:
    """Compare the tensors of `files` with the module's by name and shape; more than needed is no error.

    Raises `WeightsError` naming the file and the first weight that is missing or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found: set[str] = set()
    for path in files:
        for name, shape in _tensor_shapes(path).items():
            name = name if name in expected else name.removeprefix("model.")
            if name in expected and shape != expected[name]:
                raise WeightsError(f"{path}: {name} has shape {shape}, the config asks for {expected[name]}")
            found.add(name)
    missing = sorted(expected.keys() - found)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        where = files[0] if len(files) == 1 else files[0].parent
        raise WeightsError(f"{where}: missing weights: {missing[0]}{more}")


def _tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys()) - {LM_HEAD}
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file: {one_line(error)}") from error
