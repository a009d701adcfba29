"""Counting what is right, on drawn scenes; and one real evaluation, small, of the built-in pipeline."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zbench.zimage.evaluate import Tally, scenes_with_captions, tally
from zbench.zimage.scenes.draw import draw
from zbench.zimage.scenes.world import parse_scene


def test_drawn_scenes_are_all_right() -> None:
    scenes = [scene for scene, _ in scenes_with_captions(40, "test", "en", seed=0)]
    rates = tally(scenes, list(draw(scenes).numpy())).rates()
    assert rates.pop("signs_readable") == 1
    assert min(rates.values()) == pytest.approx(1.0)


def test_each_wrong_attribute_lowers_its_own_rate() -> None:
    asked = parse_scene("large red circle left; on white; word CAT")
    counts = Tally()
    counts.add(asked, asked)
    counts.add(asked, parse_scene("large red square left; on white; word CAR"))
    rates = counts.rates()
    assert rates["shape"] == rates["word"] == rates["scene"] == 0.5
    assert rates["colour"] == rates["place"] == rates["background"] == 1.0
    assert rates["sign"] == pytest.approx(5 / 6)
    # C, A and T were asked for; T was right once of twice, which is not more than half
    assert rates["signs_readable"] == pytest.approx(2 / 3)
    # of 2 × 7 attributes two are wrong
    assert counts.share() == pytest.approx(12 / 14)


def test_a_word_of_another_length_has_no_sign_right() -> None:
    counts = Tally()
    counts.add(parse_scene("large red circle left; on white; word CAT"), parse_scene("large red circle left; on white"))
    assert counts.rates()["sign"] == 0.0


def test_captions_are_of_the_same_scenes_in_both_languages() -> None:
    english, chinese = (scenes_with_captions(10, "test", language, 0) for language in ("en", "zh"))
    assert [scene for scene, _ in english] == [scene for scene, _ in chinese]
    assert all(scene.split == "test" for scene, _ in english)
    assert all(ord(text[0]) < 128 for _, text in english) and all(ord(text[0]) > 128 for _, text in chinese)


def test_the_command_prints_rates(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zbench.zimage.evaluate", "--scenes", "1", "--steps", "1", "--device", "cpu"]
    done = subprocess.run([*command, "--format", "json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["rates"]) == {"en", "zh"} and result["seconds_an_image"] > 0
    assert all(0 <= rate <= 1 for rates in result["rates"].values() for rate in rates.values())
