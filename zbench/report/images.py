"""The baseline's images and those of a few telling trials, side by side, sized for a page.

Reads a run's artifacts and nothing outside of them; an image that is not there is left out, never an error.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from zbench.measurement import ImageQuality
from zbench.quality.artifacts import image_path
from zbench.record import Record
from zbench.report import cells
from zbench.report.findings import default_row
from zbench.report.summary import TrialSummary
from zbench.stats import pareto_front
from zbench.store import artifacts_folder

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

MOST_TRIALS = 8  # beside the baseline
MOST_STRIPS = 6
PAGE_PIXELS = 384  # widest on the page
STRIP_PIXELS = 224  # widest in a strip


@dataclass(frozen=True)
class Picture:
    """One image and what is written under it."""

    label: str
    caption: str
    path: Path


@dataclass(frozen=True)
class Strip:
    """Images of one prompt and seed, the baseline's first."""

    prompt_id: str
    seed: int
    text: str
    pictures: tuple[Picture, ...]

    @property
    def title(self) -> str:
        """The prompt, and the seed that tells its images apart."""
        return f"{self.text or self.prompt_id} (seed {self.seed})"


def telling_trials(trials: Sequence[TrialSummary], limit: int = MOST_TRIALS) -> list[TrialSummary]:
    """Worth looking at, in table order: the least alike, cache-dit's defaults, the Pareto front, then the fastest."""
    judged = [
        row
        for row in trials
        if row.state == "COMPLETE" and not row.is_baseline and row.ssim_worst is not None and row.speedup is not None
    ]
    if not judged:
        return [row for row in trials if row.state == "COMPLETE" and not row.is_baseline][:limit]
    trusted = [row for row in judged if row.is_trusted]
    front = [trusted[i] for i in pareto_front([(row.ssim_worst or 0.0, row.speedup or 0.0) for row in trusted])]
    wanted = [min(judged, key=lambda row: row.ssim_worst or 0.0)]
    wanted += [row for row in (default_row(judged),) if row is not None]
    wanted += sorted((row for row in front if not row.is_identical), key=lambda row: -(row.speedup or 0))
    wanted += [row for row in judged if not row.is_identical]
    chosen = list(dict.fromkeys(row.trial_id for row in wanted))[:limit]
    return [row for row in judged if row.trial_id in chosen]


def strips(records: Sequence[Record], trials: Sequence[TrialSummary], run_folders: Mapping[str, Path]) -> list[Strip]:
    """For each baseline and each of its first prompts and seeds: its image and those of `telling_trials`.

    `run_folders` are by sweep name: trials of several sweeps may share an id, but not their images.
    """
    by_id = {(record.sweep, record.trial_id): record for record in records}
    made = []
    for base in (row for row in trials if row.is_baseline and row.state == "COMPLETE" and row.sweep in run_folders):
        record = by_id[base.sweep, base.trial_id]
        followers = [row for row in trials if (row.sweep, row.baseline_id) == (base.sweep, base.trial_id)]
        shown = [base, *telling_trials(followers)]
        for prompt_id, seed, text in _pairs(record)[:MOST_STRIPS]:
            pictures = []
            for row in shown:
                path = image_path(artifacts_folder(run_folders[row.sweep], row.trial_id), prompt_id, seed)
                if path.is_file():
                    caption = _caption(row, _quality(by_id[row.sweep, row.trial_id], prompt_id, seed))
                    pictures.append(Picture(cells.label(row), caption, path))
            if pictures:
                made.append(Strip(prompt_id, seed, text, tuple(pictures)))
    return made


def data_uri(path: Path) -> str | None:
    """The image as a `data:` URI, at most PAGE_PIXELS wide; None if it cannot be read."""
    image = _open(path, PAGE_PIXELS)
    if image is None:
        return None
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=92, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def strip_jpeg(strip: Strip) -> bytes | None:
    """The strip as one picture with names and figures under each image; None if none can be read."""
    from PIL import Image, ImageDraw

    opened = [(picture, _open(picture.path, STRIP_PIXELS)) for picture in strip.pictures]
    shown = [(picture, image) for picture, image in opened if image is not None]
    if not shown:
        return None
    gap, below = 8, 36
    columns = min(len(shown), 5)
    width = max(image.width for _, image in shown) + gap
    height = max(image.height for _, image in shown) + below + gap
    sheet = Image.new("RGB", (columns * width + gap, -(-len(shown) // columns) * height + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (picture, image) in enumerate(shown):
        x, y = gap + place % columns * width, gap + place // columns * height
        sheet.paste(image, (x, y))
        for line, (text, colour) in enumerate(((picture.label, "#111111"), (picture.caption, "#555555"))):
            size = 12.0
            while size > 7 and draw.textlength(text, font=_font(size)) > width - gap:
                size -= 0.5
            at = (x, y + image.height + 3 + 15 * line)
            draw.text(at, text, fill=colour, font=_font(size))
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


@cache
def _font(size: float) -> "FreeTypeFont":
    """Matplotlib's own font: Pillow's lacks the multiplication sign."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _open(path: Path, widest: int) -> "Image | None":
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, ValueError):
        return None
    if image.width > widest:
        image = image.resize((widest, max(1, round(image.height * widest / image.width))), Image.Resampling.LANCZOS)
    return image


def _pairs(record: Record) -> list[tuple[str, int, str]]:
    if record.measurement is None:
        return []
    texts = {p["id"]: p["text"] for p in record.config.get("workload", {}).get("prompts", [])}
    seen = dict.fromkeys((r.prompt_id, r.seed) for r in record.measurement.rounds)
    return [(prompt_id, seed, texts.get(prompt_id, "")) for prompt_id, seed in seen]


def _quality(record: Record, prompt_id: str, seed: int) -> ImageQuality | None:
    quality = record.measurement.quality if record.measurement else None
    return next((q for q in quality or () if (q.prompt_id, q.seed) == (prompt_id, seed)), None)


def _caption(row: TrialSummary, quality: ImageQuality | None) -> str:
    parts = [cells.speedup(row)] if row.speedup is not None else []
    if quality is not None and quality.identical and not row.is_baseline:
        parts.append(cells.mark("identical", row.quality_source))
    elif quality is not None and not quality.identical:
        parts.append(cells.mark(f"SSIM {cells.likeness(quality.ssim)}", row.quality_source))
        if quality.psnr_db is not None:
            parts.append(cells.mark(f"{quality.psnr_db:.1f} dB", row.quality_source))
    return " · ".join(parts)
