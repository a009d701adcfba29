"""Claims about `zbench.zimage.geometry`: it reads the official configs, and says which key of which file is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zbench.zimage.geometry import Geometry
from zbench.zimage.layout import preset_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the turbo preset that a test may damage."""
    return Path(shutil.copytree(preset_folder("zimage_turbo"), tmp_path / "turbo"))


def change(path: Path, **values: object) -> None:
    """Set keys of a JSON config; None removes one."""
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_turbo_has_the_published_dimensions() -> None:
    """Z-Image's transformer: 30 layers, 30 heads, width 3840, FFN 10240 (arXiv 2511.22699); its encoder: Qwen3-4B."""
    geometry = Geometry.from_folder(preset_folder("zimage_turbo"))
    transformer, encoder, vae = geometry.transformer, geometry.text_encoder, geometry.vae
    assert (transformer.dim, transformer.n_layers, transformer.n_refiner_layers, transformer.n_heads) == (
        3840,
        30,
        2,
        30,
    )
    assert (transformer.head_dim, transformer.ffn_dim, transformer.patch_dim) == (128, 10240, 64)
    assert (encoder.hidden_size, encoder.n_layers, encoder.n_heads, encoder.n_kv_heads) == (2560, 36, 32, 8)
    assert (encoder.head_dim, encoder.intermediate_size, encoder.vocab_size) == (128, 9728, 151936)
    assert (vae.block_out_channels, vae.layers_per_block, vae.latent_channels) == ((128, 256, 512, 512), 2, 16)
    assert (vae.scale_factor, vae.norm_num_groups, vae.mid_block_attention) == (8, 32, True)
    assert (vae.quant_conv, vae.post_quant_conv) == (False, False)


def test_text_embeddings_fit_the_transformer_and_latents_fit_the_vae() -> None:
    for name in ("zimage", "zimage_tiny", "zimage_turbo"):
        geometry = Geometry.from_folder(preset_folder(name))
        assert geometry.transformer.cap_feat_dim == geometry.text_encoder.hidden_size
        assert geometry.transformer.in_channels == geometry.vae.latent_channels


def test_a_token_covers_sixteen_pixels_a_side() -> None:
    """8 pixels a latent, 2 latents a patch."""
    geometry = Geometry.from_folder(preset_folder("zimage_turbo"))
    assert geometry.image_tokens(1024, 1024) == 4096
    assert geometry.image_tokens(512, 768) == 32 * 48


@pytest.mark.parametrize(("height", "width", "named"), [(1000, 1024, "height=1000"), (1024, 0, "width=0")])
def test_sides_the_pipeline_would_refuse_are_named(height: int, width: int, named: str) -> None:
    geometry = Geometry.from_folder(preset_folder("zimage_turbo"))
    with pytest.raises(ValueError, match=named):
        geometry.image_tokens(height, width)


def test_a_missing_config_is_named(folder: Path) -> None:
    (folder / "text_encoder" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"text_encoder/config\.json"):
        Geometry.from_folder(folder)


def test_a_missing_key_is_named_with_its_file(folder: Path) -> None:
    change(folder / "transformer" / "config.json", n_layers=None)
    with pytest.raises(ValueError, match=r"transformer/config\.json: key 'n_layers' is missing"):
        Geometry.from_folder(folder)


def test_a_key_of_the_wrong_kind_is_named_with_its_value(folder: Path) -> None:
    change(folder / "vae" / "config.json", layers_per_block="two")
    with pytest.raises(ValueError, match=r"vae/config\.json: layers_per_block='two' must be a positive integer"):
        Geometry.from_folder(folder)


def test_text_that_is_not_json_is_named(folder: Path) -> None:
    (folder / "vae" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"vae/config\.json: not JSON"):
        Geometry.from_folder(folder)


def test_heads_that_do_not_divide_the_width_are_refused(folder: Path) -> None:
    change(folder / "transformer" / "config.json", n_heads=7)
    with pytest.raises(ValueError, match="not divisible by n_heads=7"):
        Geometry.from_folder(folder)


def test_geometry_flops_and_layout_load_without_torch() -> None:
    """The parent process plans sweeps with them and never imports torch."""
    code = (
        "import sys; import zbench.zimage.flops, zbench.zimage.geometry, zbench.zimage.storage; "
        "import zbench.zimage.hub_cache as hub; "
        "hub.find_in_hf_cache('Tongyi-MAI/Z-Image-Turbo'); "
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
