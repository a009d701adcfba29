"""How long everything that is said of 32 images takes, outside the timed rounds.

    python benchmarks/quality_time.py [--images 32]

Drawn scenes stand for the baseline's images, the same with a little noise for a trial's. Goal: under 5 s on two cores.
"""

import argparse
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np

from zbench.config import Prompt
from zbench.quality.artifacts import Artifact, save_artifacts
from zbench.quality.judging import Judges, judge_images
from zbench.zimage.scenes.draw import draw
from zbench.zimage.scenes.world import sample_scene

GOAL_S = 5.0


def main() -> None:
    """Print the seconds of one judgement, after one that loads what is needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()
    random, noise = Random(0), np.random.default_rng(0)
    scenes = [sample_scene(random, "test") for _ in range(arguments.images)]
    prompts = [Prompt(id=str(i), text="", scene=str(scene)) for i, scene in enumerate(scenes)]
    drawn = list(draw(scenes).numpy())
    latents = noise.standard_normal((16, 32, 32)).astype(np.float32)
    reference = [Artifact(str(i), 0, image, latents) for i, image in enumerate(drawn)]
    made = [
        Artifact(a.prompt_id, 0, (a.image + noise.normal(0, 5, a.image.shape)).clip(0, 255).astype(np.uint8), latents)
        for a in reference
    ]
    with tempfile.TemporaryDirectory() as folder:
        save_artifacts(Path(folder), reference)
        judge_images(Judges(), prompts, made[:1], [], Path(folder))
        began = time.perf_counter()
        judge_images(Judges(), prompts, made, [], Path(folder))
        spent = time.perf_counter() - began
    print(f"{arguments.images} images judged in {spent:.2f} s, {1000 * spent / arguments.images:.0f} ms each")
    print(f"goal under {GOAL_S} s for 32")


if __name__ == "__main__":
    main()
