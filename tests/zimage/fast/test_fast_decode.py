"""A decode that is laid out and compiled anew gives the image of diffusers' own, and leaves nothing switched behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch._dynamo.utils import counters

from zbench.zimage.fast import shapes
from zbench.zimage.fast.decode import MODES, speed_decode

TOLERANCE = 1e-5


@pytest.fixture
def vae() -> Any:
    """Two levels with attention in the middle; tiles of 16 latents a side."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[8, 16],
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=32,
        ).eval()


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dynamo's graphs run as they are: what a compiler makes of them is another test's."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(shapes, "BACKEND", "eager")
    yield
    torch.compiler.reset()


def latents(batch: int, rows: int, columns: int) -> Tensor:
    return torch.randn((batch, 4, rows, columns), generator=torch.Generator().manual_seed(rows))


@torch.no_grad()
def decoded(vae: Any, given: Tensor) -> Tensor:
    image: Tensor = vae.decode(given, return_dict=False)[0]
    return image


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["whole", "tiled", "sliced"])
def test_every_mode_decodes_the_same_image(vae: Any, mode: str, way: str) -> None:
    vae.use_tiling, vae.use_slicing = way == "tiled", way == "sliced"
    for shape in ((1, 8, 8), (2, 20, 37)):
        own = decoded(vae, latents(*shape))
        undo = speed_decode(vae, mode)
        made = decoded(vae, latents(*shape))
        undo()
        assert made.shape == own.shape and (mode == "eager" or made.is_contiguous())
        assert float((made - own).abs().max()) <= TOLERANCE
        assert torch.equal(decoded(vae, latents(*shape)), own)


def test_compiled_code_decodes_the_same_image(vae: Any) -> None:
    torch.compiler.reset()
    counters.clear()
    own = decoded(vae, latents(1, 8, 8))
    undo = speed_decode(vae, "compiled")
    made = decoded(vae, latents(1, 8, 8))
    undo()
    assert float((made - own).abs().max()) <= TOLERANCE
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    torch.compiler.reset()


@pytest.mark.usefixtures("uncompiled")
def test_each_shape_of_a_tile_is_compiled_once_whatever_dynamo_s_limit(vae: Any) -> None:
    """28 x 28 latents in tiles of 16, by steps of 12: whole ones, and those at the right, below and in the corner."""
    vae.use_tiling = True
    undo = speed_decode(vae, "compiled")
    with torch._dynamo.config.patch(recompile_limit=1):
        for _ in range(2):
            decoded(vae, latents(1, 28, 28))
    undo()
    assert counters["stats"]["unique_graphs"] == 4 and not counters["graph_break"]


@pytest.mark.usefixtures("uncompiled")
def test_too_many_shapes_of_latents_are_an_error_and_not_a_slow_decode(
    vae: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "SHAPES", 1)
    undo = speed_decode(vae, "compiled")
    with torch._dynamo.config.patch(recompile_limit=1):
        decoded(vae, latents(1, 8, 8))
        with pytest.raises(Exception, match="recompile_limit"):
            decoded(vae, latents(1, 8, 12))
    undo()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("mode", MODES)
def test_autotuning_is_on_for_a_compiled_decode_alone(vae: Any, mode: str) -> None:
    seen = []
    vae.decoder.conv_out.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    undo = speed_decode(vae, mode)
    with torch.no_grad():
        decoded(vae, latents(1, 8, 8))
        assert not torch.backends.cudnn.benchmark
        with pytest.raises(RuntimeError):
            vae.decoder(torch.ones(1, 5, 8, 8))
    assert not torch.backends.cudnn.benchmark
    undo()
    assert seen[0] is (mode == "compiled")


@pytest.mark.parametrize("mode", ["channels_last", "compiled"])
def test_weights_are_laid_out_and_back(vae: Any, mode: str) -> None:
    weights = [weight for weight in vae.decoder.parameters() if weight.dim() == 4 and weight.shape[2] > 1]
    undo = speed_decode(vae, mode)
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert vae.encoder.conv_in.weight.is_contiguous()
    undo()
    undo()
    assert all(weight.is_contiguous() for weight in weights) and "forward" not in vars(vae.decoder)


def test_latents_come_to_the_decoder_in_its_layout(vae: Any) -> None:
    seen = []
    vae.decoder.conv_in.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    speed_decode(vae, "channels_last")
    decoded(vae, latents(1, 8, 8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and not seen[0].is_contiguous()


def test_a_mode_that_is_none_is_named(vae: Any) -> None:
    with pytest.raises(ValueError, match="decode=fast: must be one of eager, channels_last, compiled"):
        speed_decode(vae, "fast")
