"""Fidelity to the prompt: the share of a scene's attributes that are in the image; it needs no other image.

Only prompts that name their scene (`workload.prompts[].scene`) can be judged so. The reader's own errors are measured
in `tests/zimage/scenes/test_read.py` and stated in `docs/quality.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

from zbench.config import Prompt
from zbench.measurement import PromptFidelity
from zbench.quality.artifacts import Artifact
from zbench.quality.perceptual import ClipScore


def judge(made: Artifact, prompt: Prompt, clip: ClipScore | None = None) -> PromptFidelity | None:
    """What of `prompt` the image shows; None where neither a scene nor CLIP can tell."""
    share, wrong = None, []
    if prompt.scene is not None and made.image.shape == (256, 256, 3):
        from zbench.zimage.scenes.read import compare, read_scene, share_right
        from zbench.zimage.scenes.world import parse_scene

        attributes = compare(parse_scene(prompt.scene), read_scene(made.image))
        share, wrong = share_right(attributes), [a.kind for a in attributes if not a.right]
    score = clip(made.image, prompt.text) if clip is not None else None
    if share is None and score is None:
        return None
    return PromptFidelity(made.prompt_id, made.seed, share, wrong, score)


def judge_all(
    made: list[Artifact], prompts: Sequence[Prompt], clip: ClipScore | None
) -> tuple[list[PromptFidelity] | None, str | None]:
    """Every image's fidelity to its prompt, or None and why: no_scene."""
    by_id = {prompt.id: prompt for prompt in prompts}
    judged = [judge(artifact, by_id[artifact.prompt_id], clip) for artifact in made]
    found = [fidelity for fidelity in judged if fidelity is not None]
    return (found, None) if found else (None, "no_scene")
