"""Which images a page shows side by side, the reference's and those of a few telling trials, and what is said of each.

Reads a run's artifacts and nothing outside of them; an image that is not there is left out, never an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from zbench.analysis.figures import TrialFigures
from zbench.analysis.pareto import front
from zbench.analysis.view import View
from zbench.measurement import ImageQuality, PromptFidelity
from zbench.quality.artifacts import MOST_SIDE, image_path
from zbench.record import Record
from zbench.report.text import cells
from zbench.report.text.findings import default_row
from zbench.store import ARTIFACTS, artifacts_folder

J = TypeVar("J", ImageQuality, PromptFidelity)
MOST_TRIALS = 8  # beside the reference
MOST_STRIPS = 6
MOST_KINDS = 3  # of wrong attributes named under an image


@dataclass(frozen=True)
class Picture:
    """One image and what is written under it."""

    label: str
    caption: str
    path: Path
    prompt: str = ""  # how much of its prompt it shows
    reference: Path | None = None  # the reference's image, where this one differs from it
    most_pixels: tuple[int, int] = (MOST_SIDE, MOST_SIDE)  # width and height of what its trial makes: none is larger


@dataclass(frozen=True)
class Strip:
    """Images of one prompt and seed, the reference's first."""

    prompt_id: str
    seed: int
    text: str
    pictures: tuple[Picture, ...]

    @property
    def title(self) -> str:
        """The prompt, and the seed that tells its images apart."""
        return f"{self.text or self.prompt_id} (seed {self.seed})"


def telling_trials(trials: Sequence[TrialFigures], limit: int = MOST_TRIALS) -> list[TrialFigures]:
    """Worth looking at, in table order: the least alike, cache-dit's defaults, the Pareto front, then the fastest."""
    judged = [
        row
        for row in trials
        if row.state == "COMPLETE" and not row.is_reference and row.ssim_worst is not None and row.speedup is not None
    ]
    if not judged:
        return [row for row in trials if row.state == "COMPLETE" and not row.is_reference][:limit]
    wanted = [min(judged, key=lambda row: row.ssim_worst or 0.0)]
    wanted += [row for row in (default_row(judged),) if row is not None]
    wanted += sorted((row for row in front(judged) if not row.is_unchanged), key=lambda row: -(row.speedup or 0))
    wanted += [row for row in judged if not row.is_unchanged]
    chosen = list(dict.fromkeys(row.trial_id for row in wanted))[:limit]
    return [row for row in judged if row.trial_id in chosen]


def strips(view: View, run_folders: Mapping[str, Path]) -> list[Strip]:
    """For each reference and each of its first prompts and seeds: its image and those of `telling_trials`.

    `run_folders` are by sweep name: trials of several sweeps may share an id, but not their images.
    """
    trials, by_id = view.trials, view.by_key
    made = []
    for base in (row for row in trials if row.is_reference and row.state == "COMPLETE" and row.sweep in run_folders):
        record = by_id[base.sweep, base.trial_id]
        followers = [row for row in trials if (row.sweep, row.reference_id) == (base.sweep, base.trial_id)]
        shown = [base, *telling_trials(followers)]
        for prompt_id, seed, text in _pairs(record)[:MOST_STRIPS]:
            found = [
                _picture(row, by_id[row.sweep, row.trial_id], base, run_folders[row.sweep], prompt_id, seed)
                for row in shown
            ]
            pictures = tuple(p for p in found if _lies_in(p.path, run_folders[base.sweep] / ARTIFACTS))
            if pictures:
                made.append(Strip(prompt_id, seed, text, pictures))
    return made


def _picture(
    row: TrialFigures, record: Record, base: TrialFigures, run_folder: Path, prompt_id: str, seed: int
) -> Picture:
    measurement, image = record.measurement, (prompt_id, seed)
    own = next((prompt.own for prompt in record.trial.workload.prompts if prompt.id == prompt_id), {})
    pipeline = record.trial.with_own(own).pipeline
    quality = _of_image(measurement.quality if measurement else None, image)
    differs = not row.is_reference and not (quality is not None and quality.identical)
    reference = image_path(artifacts_folder(run_folder, base.trial_id), prompt_id, seed)
    return Picture(
        label=cells.label(row),
        caption=_caption(row, quality),
        path=image_path(artifacts_folder(run_folder, row.trial_id), prompt_id, seed),
        prompt=_prompt(row, _of_image(measurement.prompt_fidelity if measurement else None, image)),
        reference=reference if differs and _lies_in(reference, run_folder / ARTIFACTS) else None,
        most_pixels=(min(pipeline.width, MOST_SIDE), min(pipeline.height, MOST_SIDE)),
    )


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether it is a file of this folder, and no link that leads out of it."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except OSError:  # such as a name that is too long
        return False


def _pairs(record: Record) -> list[tuple[str, int, str]]:
    if record.measurement is None:
        return []
    texts = {prompt.id: prompt.text for prompt in record.trial.workload.prompts}
    seen = dict.fromkeys((r.prompt_id, r.seed) for r in record.measurement.requests)
    return [(prompt_id, seed, texts.get(prompt_id, "")) for prompt_id, seed in seen]


def _of_image(judged: Sequence[J] | None, image: tuple[str, int]) -> J | None:
    return next((j for j in judged or () if (j.prompt_id, j.seed) == image), None)


def _prompt(row: TrialFigures, fidelity: PromptFidelity | None) -> str:
    """`prompt 91 %: colour, word`."""
    if fidelity is None or fidelity.share_right is None:
        return ""
    kinds = list(dict.fromkeys(fidelity.wrong))
    more = ", …" if len(kinds) > MOST_KINDS else ""
    wrong = f": {', '.join(kinds[:MOST_KINDS])}{more}" if kinds else ""
    return f"prompt {cells.mark(cells.percent(fidelity.share_right), row.quality_source)}{wrong}"


def _caption(row: TrialFigures, quality: ImageQuality | None) -> str:
    parts = [cells.speedup(row)] if row.speedup is not None else []
    if quality is not None and quality.identical and not row.is_reference:
        parts.append(cells.mark("identical", row.quality_source))
    elif quality is not None and row.within_noise:
        parts.append(cells.mark("difference under noise", row.quality_source))
    elif quality is not None and not quality.identical:
        parts.append(cells.mark(f"SSIM {cells.likeness(quality.ssim)}", row.quality_source))
        if quality.psnr_db is not None:
            parts.append(cells.mark(f"{quality.psnr_db:.1f} dB", row.quality_source))
    return " · ".join(parts)
