"""What is said of a trial's images, on drawn scenes whose errors are put there on purpose."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from zbench.config import MeasureConfig, Prompt, WorkloadConfig
from zbench.errors import ConfigError
from zbench.quality import judging
from zbench.quality.artifacts import Artifact, save_artifacts
from zbench.quality.fidelity import ms_ssim
from zbench.quality.judging import Judges, judge_images, judges_for
from zbench.workload import check_scenes
from zbench.zimage.scenes.draw import draw_one
from zbench.zimage.scenes.world import parse_scene

ASKED = "large red circle left; small blue star top; on white; word CAT"
PROMPTS = [Prompt("scene", "…", "en", ASKED), Prompt("free", "a cat on a chair")]


def artifact(prompt_id: str, painted: str = ASKED, noise: int = 0) -> Artifact:
    image: NDArray[np.uint8] = draw_one(parse_scene(painted))
    if noise:
        rng = np.random.default_rng(noise)
        image = np.clip(image.astype(int) + rng.integers(-noise, noise + 1, image.shape), 0, 255).astype(np.uint8)
    return Artifact(prompt_id, 0, image, None)


def test_a_baseline_is_judged_by_its_prompt_and_its_noise_floor() -> None:
    made = [artifact("scene"), artifact("free")]
    again = [artifact("scene"), artifact("free", noise=3)]
    verdict = judge_images(Judges(), PROMPTS, made, again, None)
    assert verdict.quality is None and verdict.reasons == {"quality": "no_reference"}
    assert verdict.noise_floor is not None and verdict.prompt_fidelity is not None
    assert [q.identical for q in verdict.noise_floor] == [True, False]
    assert 0.9 < verdict.noise_floor[1].ssim < 1 and (verdict.noise_floor[1].ms_ssim or 0) < 1
    (judged,) = verdict.prompt_fidelity  # the other prompt names no scene
    assert (judged.prompt_id, judged.share_right, judged.wrong) == ("scene", 1.0, [])


def test_a_baseline_made_once_has_no_noise_floor() -> None:
    verdict = judge_images(Judges(), PROMPTS, [artifact("free")], [], None)
    assert verdict.noise_floor is None and verdict.prompt_fidelity is None
    assert verdict.reasons == {"quality": "no_reference", "noise_floor": "one_cycle", "prompt_fidelity": "no_scene"}


def test_a_trial_whose_reference_is_not_there_is_no_reference_itself() -> None:
    verdict = judge_images(Judges(), PROMPTS, [artifact("scene")], None, None)
    assert verdict.quality is None and verdict.noise_floor is None
    assert verdict.reasons == {"quality": "no_reference", "noise_floor": "not_a_reference"}


def test_a_cached_trial_is_compared_and_its_wrong_attributes_are_named(tmp_path: Path) -> None:
    save_artifacts(tmp_path, [artifact("scene")])
    spoilt = artifact("scene", "large green circle left; small blue star top; on white; word CAR")
    verdict = judge_images(Judges(), PROMPTS, [spoilt], None, tmp_path)
    assert verdict.quality is not None and not verdict.quality[0].identical
    assert verdict.prompt_fidelity is not None
    (judged,) = verdict.prompt_fidelity
    # Two things of four attributes, and count, background and word: 9 of 11 are right.
    assert judged.share_right == pytest.approx(9 / 11) and judged.wrong == ["colour", "word"]
    assert verdict.reasons == {"noise_floor": "not_a_reference"}


def test_ms_ssim_needs_five_scales() -> None:
    image = artifact("scene").image
    assert ms_ssim(image[:160], image[:160]) is None
    assert ms_ssim(image, image) == pytest.approx(1.0)
    noisy = artifact("scene", noise=40).image
    assert 0 < (ms_ssim(noisy, image) or 0) < 0.99


def test_a_wrong_scene_is_an_error_that_names_it() -> None:
    workload = WorkloadConfig(name="w", prompts=[PROMPTS[1], Prompt("bad", "…", "en", "large red blob left; on white")])
    with pytest.raises(ConfigError, match=r"workload\.prompts\[1\]\.scene=large red blob left; on white: .*blob"):
        check_scenes(workload)


def test_a_judge_whose_weights_were_replaced_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lpips.safetensors"
    measure = MeasureConfig(lpips_weights=str(path))
    monkeypatch.setattr(judging, "Lpips", lambda path: Path(path).read_text())
    path.write_text("old")
    first = judges_for(measure)
    assert judges_for(measure).lpips is first.lpips
    path.write_text("new")
    second = judges_for(measure)
    assert (first.lpips, second.lpips) == ("old", "new")
    assert first.sha256.keys() == {"lpips_weights"} and first.sha256 != second.sha256
