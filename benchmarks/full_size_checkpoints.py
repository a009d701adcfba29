"""Write a full-size pipeline with random weights in the forms that people download, to measure how each loads and runs.

    python benchmarks/full_size_checkpoints.py OUT     (a GPU, 45 GB of disk, about 70 s on an H100)

OUT gets `plain` (bfloat16, official layout), `fp8` (the layers' matrices in float8_e4m3fn with a `weight_scale` each),
`z-Q8_0.gguf` (the same matrices as Q8_0) and `lora.safetensors` (rank 16, on the attention's four linear layers).
"""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file

from zbench.zimage.layout import Checkpoint, preset_folder
from zbench.zimage.loading import load_pipeline

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
LARGEST_FP8 = 448.0  # of float8_e4m3fn
RANK = 16
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
THREADS = 12


def main(out: Path) -> None:
    """Build the pipeline on the GPU and write it four times."""
    checkpoint = Checkpoint(preset_folder("zimage_turbo"), weights="random")
    pipe = load_pipeline(checkpoint, dtype=torch.bfloat16, device="cuda")
    pipe.save_pretrained(out / "plain", max_shard_size="40GB")
    state = pipe.transformer.state_dict()
    write_fp8(state, out / "plain", out / "fp8")
    write_gguf(state, out / "z-Q8_0.gguf")
    write_lora(state, out / "lora.safetensors")


def is_matrix(name: str, tensor: torch.Tensor) -> bool:
    """Whether it is the weight of a linear layer of a block."""
    return tensor.ndim == 2 and "layers." in name and name.endswith(".weight")


def write_fp8(state: dict[str, torch.Tensor], plain: Path, folder: Path) -> None:
    """The folder `plain` with another transformer; the other components are links."""
    shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for component in ("text_encoder", "vae"):
        for file in (plain / component).glob("*.safetensors"):
            os.symlink(file, folder / component / file.name)
    scaled = {}
    for name, tensor in state.items():
        scaled[name] = tensor.cpu()
        if is_matrix(name, tensor):
            scale = tensor.abs().amax().float() / LARGEST_FP8
            scaled[name] = (tensor.float() / scale).to(torch.float8_e4m3fn).cpu()
            scaled[f"{name}_scale"] = scale.reshape(1).cpu()
    save_file(scaled, folder / WEIGHTS)


def write_gguf(state: dict[str, torch.Tensor], path: Path) -> None:
    """The transformer alone; what is no matrix of a block stays float32."""
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(path), "lumina2")

    def packed(item: tuple[str, torch.Tensor]) -> tuple:
        name, tensor = item
        values = tensor.float().cpu().numpy()
        return (name, gguf.quants.quantize(values, kind), kind) if is_matrix(*item) else (name, values, None)

    with ThreadPoolExecutor(THREADS) as pool:
        for name, values, stored in pool.map(packed, state.items()):
            writer.add_tensor(name, values, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_lora(state: dict[str, torch.Tensor], path: Path) -> None:
    """Random, in diffusers' names."""
    random = torch.Generator().manual_seed(0)
    layers = [n.removesuffix(".weight") for n in state if n.startswith("layers.") and n.endswith(".weight")]
    lora = {}
    for layer in (name for name in layers if name.endswith(ATTENTION)):
        out, into = state[f"{layer}.weight"].shape
        for half, shape in (("lora_A", (RANK, into)), ("lora_B", (out, RANK))):
            lora[f"transformer.{layer}.{half}.weight"] = (torch.randn(shape, generator=random) * 0.02).bfloat16()
    save_file(lora, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
