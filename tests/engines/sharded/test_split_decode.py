"""A decode split by rows is the whole one up to rounding, on every rank, with a rank's share of the work."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decode_ranks import LATENTS, SIZES, Seen, cases, decoded, four_levels, latents, traces
from diffusers import AutoencoderKL
from rank_start import run_ranks

from zbench.engines.reference.sharded import decode
from zbench.engines.reference.sharded.decode import split_decode
from zbench.errors import ConfigError
from zbench.methods.parallel import even_shares
from zbench.zimage.layout import preset_folder

pytestmark = pytest.mark.timeout(1200)  # many processes: on a busy machine they take their time

RANKS = max(SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What four processes left, in groups of two, three and four."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks("decode_ranks", folder, RANKS)
    return folder


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple[torch.Tensor, int]]:
    """By name of the case: the image that one process makes, and its largest activation."""
    made = {}
    for name, vae, of in cases():
        seen = Seen(vae)
        made[name] = (decoded(name, vae, of), seen.largest)
        seen.close()
    return made


def image(folder: Path, name: str, size: int, rank: int) -> Any:
    return np.load(folder / f"{name}-{size}-{rank}.npy")


def told(folder: Path, name: str, size: int, rank: int) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}-{size}-{rank}.json").read_text()))


@pytest.mark.parametrize("size", SIZES)
def test_the_image_is_that_of_one_process(folder: Path, whole: dict[str, Any], size: int) -> None:
    for name, (expected, _) in whole.items():
        if "bf16" not in name:
            assert np.abs(image(folder, name, size, 0) - expected.numpy()).max() <= 1e-4, name


@pytest.mark.parametrize("size", SIZES)
def test_in_bf16_it_is_as_near_to_float32_as_one_process(folder: Path, whole: dict[str, Any], size: int) -> None:
    """Statistics and norms are computed in float32, so a split adds no error of its own; rounding is another one."""
    exact = decoded("exact", four_levels().bfloat16().float(), latents(four_levels(), "odd").bfloat16().float())
    alone = (whole["four_levels_bf16-odd"][0].float() - exact).norm()
    split = (torch.from_numpy(image(folder, "four_levels_bf16-odd", size, 0)) - exact).norm()
    assert 0 < split <= 1.25 * alone


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_has_the_same_image(folder: Path, whole: dict[str, Any], size: int) -> None:
    for name in whole:
        images = [image(folder, name, size, rank) for rank in range(size)]
        assert all(np.array_equal(images[0], other) for other in images[1:]), name


@pytest.mark.parametrize("size", SIZES)
def test_a_rank_computes_its_share(folder: Path, whole: dict[str, Any], size: int) -> None:
    """The largest activation stands at the last upsampling, whose input has a row more on either side: eight rows of
    latents are 64 there. So a share is its own rows, and two halves of a row of latents at most."""
    for name, (_, largest) in whole.items():
        rows = LATENTS[name.split("-")[1]][1]
        for rank, own in enumerate(even_shares(rows, size)):
            assert told(folder, name, size, rank)["largest"] <= largest * (own + 1) / rows, (name, rank)


def test_collectives_are_those_that_are_documented(folder: Path) -> None:
    """Two norms a residual block (2 in the middle, 2 a level), the last norm, three upsamplings, attention, image."""
    assert told(folder, "four_levels-square", 4, 0)["collectives"] == 2 * (2 + 4 * 2) + 1 + 3 + 1 + 1
    assert told(folder, "four_levels_sliced-wide", 4, 0)["collectives"] == 2 * 26  # each image of the batch by itself


def test_what_is_sent_at_1024_is_what_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """By shapes alone: the official VAE in bf16, without weights or ranks."""
    sent: list[int] = []

    class Counted:
        def all_gather_into_tensor(self, share: torch.Tensor, ranks: int, _name: str) -> torch.Tensor:
            sent.append(share.nbytes)
            return share.new_empty(ranks * share.shape[0], *share.shape[1:])

        def wait_tensor(self, begun: torch.Tensor) -> torch.Tensor:
            return begun

    monkeypatch.setattr(decode, "collectives", Counted())
    config = AutoencoderKL.load_config(preset_folder("zimage_turbo") / "vae")
    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config(config).bfloat16()
        split_decode(vae, Alone())  # type: ignore[arg-type]
        image = decoded("official", vae, torch.empty(1, 16, 128, 128, dtype=torch.bfloat16))
    assert image.shape == (1, 3, 1024, 1024)
    told = decode.__doc__ or ""
    assert f"makes {len(sent)}: 29 norms" in told
    attention, whole_image = 64 * 128 * 512 * 2, 3 * 512 * 1024 * 2
    rows = sum(sent) - attention - whole_image
    for nbytes in (sum(sent), rows, attention, whole_image):
        assert f"{nbytes / 1e6:.1f} MB" in told


def test_a_closed_split_leaves_nothing_behind(folder: Path, whole: dict[str, Any]) -> None:
    for name in whole:
        assert told(folder, name, 2, 1)["traces"] == []


class Alone:
    """A process group of several ranks that nobody talks in."""

    group_name = "nobody"

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 2


def test_one_rank_changes_nothing() -> None:
    vae = four_levels()
    handle = split_decode(vae, None)
    assert traces(vae) == []
    handle.close()


def test_closing_lets_a_norm_be_itself_where_something_wrapped_it() -> None:
    """Offload by accelerate keeps the `forward` that it found, and puts its own in its place."""
    vae: Any = four_levels()
    expected = decoded("whole", vae, latents(vae, "odd"))
    handle: Any = split_decode(vae, Alone())  # type: ignore[arg-type]
    norm = vae.decoder.conv_norm_out
    norm.forward = (lambda found: lambda rows: found(rows))(norm.forward)
    assert traces(vae) != []
    handle.close()
    handle.close()
    assert torch.equal(decoded("whole", vae, latents(vae, "odd")), expected)


def test_tiles_are_refused_before_and_later() -> None:
    vae: Any = four_levels()
    vae.enable_tiling()
    with pytest.raises(ConfigError, match=r"parallel\.vae=split: pipeline\.vae_tiling=true"):
        split_decode(vae, Alone())  # type: ignore[arg-type]
    assert traces(vae) == []
    vae.disable_tiling()
    split_decode(vae, Alone())  # type: ignore[arg-type]
    vae.enable_tiling()
    with pytest.raises(ConfigError, match=r"pipeline\.vae_tiling=true"):
        decoded("tiled", vae, latents(vae, "odd"))


def test_fewer_rows_than_ranks_are_refused() -> None:
    vae: Any = four_levels()
    split_decode(vae, Alone())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="1 rows of latents cannot be split over 2 ranks"):
        decoded("low", vae, latents(vae, "odd")[:, :, :1])


def test_parts_that_look_beyond_their_rows_are_refused() -> None:
    vae: Any = four_levels()
    vae.decoder.up_blocks[0].extra = torch.nn.Conv2d(16, 16, 3, padding=1)
    with pytest.raises(ConfigError, match=r"parts that are not split \(Conv2d\)"):
        split_decode(vae, Alone())  # type: ignore[arg-type]
