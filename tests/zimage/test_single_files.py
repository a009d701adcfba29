"""A transformer in one file, safetensors or GGUF, under diffusers' names or the original ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import TINY, original_names, plain_weights, save, save_gguf, tiny_copy
from safetensors.torch import load_file
from torch import Tensor

from zbench.zimage.components import load_component
from zbench.zimage.layout import Checkpoint, WeightsError
from zbench.zimage.loading import check_weights
from zbench.zimage.storage import stored_dtypes
from zbench.zimage.stored import GGUF_TYPES
from zbench.zimage.weight_files import weight_files

MATRIX = "layers.0.attention.to_q.weight"


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return plain_weights()


def loaded(file: Path, dtype: torch.dtype = torch.float32) -> Any:
    checkpoint = Checkpoint(TINY, transformer=file)
    check_weights(checkpoint)
    return load_component(checkpoint, "transformer", dtype)


def unchanged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer."])
@pytest.mark.parametrize("names", [unchanged, original_names])
def test_every_weight_is_that_of_the_folder(
    names: Callable[[dict[str, Tensor]], dict[str, Tensor]], prefix: str, tmp_path: Path, plain: dict[str, Tensor]
) -> None:
    state = loaded(save(names(plain), tmp_path / "any name.safetensors", prefix)).state_dict()
    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in plain.items())


def forward(transformer: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(16, 1, 8, 8, generator=generator), torch.randn(5, 128, generator=generator)
    with torch.inference_mode():
        out: Tensor = transformer([latents], torch.tensor([0.5]), [text]).sample[0]
    return out


@pytest.mark.parametrize(
    ("kind", "others", "error"), [("F16", "F16", 1e-3), ("Q8_0", "F32", 0.03), ("BF16", "BF16", 1e-6)]
)
@pytest.mark.parametrize("names", [unchanged, original_names])
def test_gguf_computes_what_plain_weights_compute(
    names: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    kind: str,
    others: str,
    error: float,
    tmp_path: Path,
    plain: dict[str, Tensor],
) -> None:
    """Within what the packing takes away: nothing for BF16, also of norms, which diffusers leaves packed."""
    file = save_gguf(names(plain), tmp_path / "t.gguf", kind, others)
    expected, found = (
        forward(t) for t in (load_component(Checkpoint(TINY), "transformer", torch.float32), loaded(file))
    )
    assert torch.linalg.vector_norm(found - expected) <= error * torch.linalg.vector_norm(expected)
    assert stored_dtypes(Checkpoint(TINY, transformer=file))["transformer"] == sorted({kind, others})


def test_a_folder_whose_transformer_is_gguf_loads(tmp_path: Path, plain: dict[str, Tensor]) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    file = save_gguf(plain, folder / "transformer" / "z_image-Q8_0.gguf")
    check_weights(Checkpoint(folder))
    assert weight_files(Checkpoint(folder), "transformer") == [file]


def broken(tmp_path: Path) -> Path:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 64)
    return tmp_path / "broken.gguf"


def cut_off(tmp_path: Path) -> Path:
    whole = save_gguf(plain_weights(), tmp_path / "cut.gguf")
    whole.write_bytes(whole.read_bytes()[:-1000])
    return whole


def no_gguf(tmp_path: Path) -> Path:
    (tmp_path / "no.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return tmp_path / "no.gguf"


def flux(tmp_path: Path) -> Path:
    return save({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}, tmp_path / "flux.safetensors")


def wider(tmp_path: Path) -> Path:
    changed = plain_weights() | {"cap_embedder.1.weight": torch.zeros(3840, 2560)}
    return save(changed, tmp_path / "turbo.safetensors")


def deeper(tmp_path: Path) -> Path:
    return save(plain_weights() | {"layers.10.attention_norm1.weight": torch.ones(192)}, tmp_path / "deep.safetensors")


def everything(tmp_path: Path) -> Path:
    encoder = {f"text_encoders.qwen3.{k}": v for k, v in load_file(TINY / "text_encoder/model.safetensors").items()}
    ours = {f"model.diffusion_model.{name}": tensor for name, tensor in plain_weights().items()}
    return save(ours | encoder, tmp_path / "all_in_one.safetensors")


def ternary(tmp_path: Path) -> Path:
    return save_gguf(plain_weights(), tmp_path / "ternary.gguf", "TQ1_0")


def shard(tmp_path: Path) -> Path:
    half = dict(sorted(plain_weights().items())[::2])
    return save(half, tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (ternary, "w2.weight is stored as TQ1_0; diffusers reads F32, F16, BF16, Q8_0"),
        (shard, "one shard of several; give the pipeline's folder"),
        (broken, "not a whole GGUF file: it lists no tensor"),
        (cut_off, "not a whole GGUF file"),
        (no_gguf, "not a whole GGUF file: a git-LFS pointer"),
        (flux, "no Z-Image transformer (missing weights: cap_embedder.1.weight); it holds double_blocks"),
        (wider, "cap_embedder.1.weight has shape (3840, 2560), the config asks for (192, 128)"),
        (deeper, "it has 11 main blocks, the config asks for 10"),
        (everything, "holds a text encoder too (text_encoders); zbench reads a transformer alone"),
    ],
)
def test_another_file_is_named_with_what_it_holds(make: Callable[[Path], Path], says: str, tmp_path: Path) -> None:
    file = make(tmp_path)
    with pytest.raises(WeightsError) as caught:
        check_weights(Checkpoint(TINY, transformer=file))
    message = str(caught.value)
    assert message.startswith(str(file)) and says in message and "\n" not in message


def test_gguf_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real = broken(tmp_path), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    with pytest.raises(WeightsError, match=r"broken\.gguf: a GGUF file needs .*: pip install 'zbench\[gguf\]'"):
        check_weights(Checkpoint(TINY, transformer=file))


def test_what_is_said_to_be_read_of_gguf_is_what_diffusers_unpacks() -> None:
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    assert {kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES} == set(GGUF_TYPES) - {"F32", "F16"}
