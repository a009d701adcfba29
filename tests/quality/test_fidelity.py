"""Expected figures are worked out by hand from the definitions, on images small enough to do so."""

import math
from pathlib import Path

import numpy as np
import pytest

from zbench.quality.artifacts import Artifact, image_path, read_artifact, save_artifacts
from zbench.quality.fidelity import compare, compare_all, compare_with_folder, latent_rel_error, psnr_db

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 200, (16, 16, 3)).astype(np.uint8)
LATENTS = RNG.standard_normal((16, 4, 4)).astype(np.float32)


def _artifact(image: np.ndarray = IMAGE, latents: np.ndarray | None = LATENTS, prompt_id: str = "a") -> Artifact:
    return Artifact(prompt_id, 0, image, latents)


def test_psnr_is_ten_log_of_peak_squared_over_mean_squared_error() -> None:
    # Every channel is off by 5, so the mean squared error is 25 and 10·log10(65025/25) = 34.151 dB.
    assert psnr_db(IMAGE + np.uint8(5), IMAGE) == pytest.approx(34.1514, abs=1e-4)


def test_psnr_does_not_wrap_around_in_eight_bits() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert psnr_db(black, white) == 0.0  # the error is the peak itself


def test_identical_image_has_no_psnr_and_full_likeness() -> None:
    quality = compare(_artifact(), _artifact())
    assert (quality.identical, quality.psnr_db, quality.ssim, quality.latent_rel_error) == (True, None, 1.0, 0.0)


def test_ssim_falls_with_noise_and_stays_within_its_bounds() -> None:
    faint = compare(_artifact(IMAGE + np.uint8(1)), _artifact())
    noise = compare(_artifact(RNG.integers(0, 255, IMAGE.shape).astype(np.uint8)), _artifact())
    assert not faint.identical and -1 <= noise.ssim < faint.ssim < 1


def test_latent_error_is_relative_to_the_baseline() -> None:
    # Scaling by 1.5 moves a vector by half its own length.
    assert latent_rel_error(LATENTS * np.float32(1.5), LATENTS) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("latents", [np.zeros((16, 4, 4), np.float32), np.zeros((16, 8, 8), np.float32)])
def test_latent_error_that_is_no_number_is_none(latents: np.ndarray) -> None:
    assert latent_rel_error(LATENTS, latents) is None


def test_latents_that_are_not_finite_give_none_and_no_nan() -> None:
    assert latent_rel_error(LATENTS * np.float32(math.nan), LATENTS) is None


def test_artifacts_come_back_bit_for_bit(tmp_path: Path) -> None:
    save_artifacts(tmp_path, [_artifact(), _artifact(prompt_id="b", latents=None)])
    first, second = read_artifact(tmp_path, "a", 0), read_artifact(tmp_path, "b", 0)
    assert first is not None and first.latents is not None and second is not None
    assert np.array_equal(first.image, IMAGE) and np.array_equal(first.latents, LATENTS)
    assert second.latents is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a-0.png",
        "b-0.png",
        "latents.safetensors",
        "made_by.json",
    ]


def test_prompt_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    assert image_path(tmp_path, "../../etc/x", 1).parent == tmp_path
    assert image_path(tmp_path, "红圆", 1).name == "红圆-1.png"
    assert image_path(tmp_path, "a/b", 1) != image_path(tmp_path, "a_b", 1)


def test_baseline_that_is_missing_or_broken_leaves_quality_out_with_a_reason(tmp_path: Path) -> None:
    assert compare_with_folder([_artifact()], tmp_path / "nowhere") == (None, "no_reference")
    save_artifacts(tmp_path, [_artifact()])
    image_path(tmp_path, "a", 0).write_bytes(b"no picture")
    assert compare_with_folder([_artifact()], tmp_path) == (None, "unreadable_reference")


def test_only_images_that_the_baseline_also_made_are_compared(tmp_path: Path) -> None:
    save_artifacts(tmp_path, [_artifact()])
    qualities, reason = compare_with_folder([_artifact(), _artifact(prompt_id="b")], tmp_path)
    assert reason is None and qualities is not None and [q.prompt_id for q in qualities] == ["a"]


def test_comparing_leaves_torchs_threads_as_they_were() -> None:
    import torch

    before = torch.get_num_threads()
    image = np.random.default_rng(0).integers(0, 256, (192, 192, 3)).astype(np.uint8)
    made = [_artifact(prompt_id=str(k), image=np.roll(image, k, 0)) for k in range(6)]
    qualities = compare_all(made, made[::-1])
    assert torch.get_num_threads() == before
    assert [q.ms_ssim for q in qualities] == pytest.approx([q.ms_ssim for q in qualities[::-1]])
    assert qualities == [compare(a, b) for a, b in zip(made, made[::-1], strict=True)]
