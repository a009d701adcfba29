"""What zbench itself does around rounds, under pytest-benchmark: `python -m pytest benchmarks`.

Compare two revisions with `--benchmark-autosave` and `pytest-benchmark compare`.
"""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from zbench.probes.disturbance import RoundWatch
from zbench.quality.artifacts import Artifact, save_artifacts
from zbench.quality.fidelity import compare
from zbench.stats import BlockSamples, LookSchedule, look
from zbench.zimage.scenes.draw import draw_one
from zbench.zimage.scenes.read import read_scene
from zbench.zimage.scenes.world import sample_scene


def scene_image() -> Any:
    return draw_one(sample_scene(Random(3), "train"))


def test_watching_a_round(benchmark: Any) -> None:
    watch = RoundWatch()

    def watched() -> list[str]:
        watch.begin()
        return watch.end()

    benchmark(watched)


def test_comparing_an_image(benchmark: Any) -> None:
    image = scene_image()
    noisy = np.clip(image.astype(int) + np.random.default_rng(0).integers(-20, 20, image.shape), 0, 255)
    latents = np.zeros((16, 32, 32), np.float32)
    quality = benchmark(compare, Artifact("a", 0, noisy.astype(np.uint8), latents), Artifact("a", 0, image, latents))
    assert 0 < quality.ssim < 1


def test_reading_a_scene(benchmark: Any) -> None:
    assert benchmark(read_scene, scene_image()).things


def test_keeping_four_images(benchmark: Any, tmp_path: Path) -> None:
    image = scene_image()
    benchmark(
        save_artifacts, tmp_path, [Artifact(str(k), 0, image, np.zeros((16, 32, 32), np.float32)) for k in range(4)]
    )


def test_a_look_at_80_blocks(benchmark: Any) -> None:
    rng = np.random.default_rng(0)
    blocks = [BlockSamples(*rng.normal(1, 0.02, (2, 2)).tolist()) for _ in range(80)]
    assert benchmark(look, blocks, LookSchedule(), 0.01).stop
