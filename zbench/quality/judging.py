"""Everything that is said of a trial's images: likeness to the reference's, fidelity to the prompt, the noise floor.

Judges that need weights are kept between trials. Nothing here is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from zbench.config import MeasureConfig, Prompt
from zbench.measurement import Effective, ImageQuality, PromptFidelity
from zbench.quality.artifacts import Artifact
from zbench.quality.fidelity import compare_all, compare_with_folder
from zbench.quality.judge_weights import judges_sha256
from zbench.quality.perceptual import ClipScore, Lpips
from zbench.quality.prompt import judge_all


@dataclass(frozen=True)
class Judges:
    """The judges that `measure` asks for beside those that need no weights."""

    lpips: Lpips | None = None
    clip: ClipScore | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    """Key of `measure` to the digest of the weights that the judge was loaded from."""


@dataclass(frozen=True)
class ImageJudgements:
    """Fields of `Measurement` of these names; `reasons` says why one is None."""

    quality: list[ImageQuality] | None = None
    prompt_fidelity: list[PromptFidelity] | None = None
    noise_floor: list[ImageQuality] | None = None
    reasons: dict[str, str] = field(default_factory=dict)


def judges_for(measure: MeasureConfig) -> Judges:
    """Load what `measure.lpips_weights` and `measure.clip_weights` name, once a process. Raises ConfigError.

    Weights that were replaced meanwhile are loaded again.

    What every judgement needs is imported here, so that the first trial that has a reference pays no more than others.
    """
    import skimage.metrics  # noqa: F401

    sha256 = judges_sha256(measure)
    return Judges(
        lpips=_lpips(measure.lpips_weights, sha256.get("lpips_weights")) if measure.lpips_weights else None,
        clip=_clip(measure.clip_weights, sha256.get("clip_weights")) if measure.clip_weights else None,
        sha256=sha256,
    )


def judge_images(
    judges: Judges,
    prompts: Sequence[Prompt],
    made: list[Artifact],
    again: list[Artifact] | None,
    reference: Path | None,
    made_by: Effective | None = None,
) -> ImageJudgements:
    """Judge one trial's images. `reference` is its quality reference's folder, None where there is none.

    `again` are a quality reference's own images made once more, None for any other trial: what two identical runs
    differ by is the noise floor. `made_by` is what took effect when they were made: images of another content are no
    reference.
    """
    quality, noise_floor = None, None
    why: dict[str, str | None] = {"quality": "no_reference", "noise_floor": "not_a_reference"}
    if reference is not None:
        quality, why["quality"] = compare_with_folder(made, reference, judges.lpips, made_by)
    if again is not None:
        noise_floor = compare_all(again, made[: len(again)], judges.lpips) or None
        why["noise_floor"] = None if noise_floor else "one_cycle"
    prompt_fidelity, why["prompt_fidelity"] = judge_all(made, prompts, judges.clip)
    return ImageJudgements(
        quality, prompt_fidelity, noise_floor, {key: reason for key, reason in why.items() if reason}
    )


@cache
def _lpips(path: str, sha256: str | None) -> Lpips:
    """Loaded anew where the file under `path` was replaced."""
    return Lpips(path)


@cache
def _clip(path: str, sha256: str | None) -> ClipScore:
    return ClipScore(path)
