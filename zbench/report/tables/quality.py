"""The second table: every measure of a trial's images, mean and worst, and below it each reference's noise floor."""

import math
from collections.abc import Sequence

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import View
from zbench.methods import attention, quantization
from zbench.report.tables.main import PROMPT, Column, table_head
from zbench.report.tables.text_table import LEFT, TextTable
from zbench.report.text import cells

ALWAYS = (
    Column("trial", cells.label, LEFT),
    Column("PSNR, dB (worst)", cells.psnr_and_worst),
    Column("SSIM (worst)", cells.ssim),
    Column("latent error (worst)", cells.latent_error),
)
MS_SSIM = Column("MS-SSIM (worst)", cells.ms_ssim)
LPIPS = Column("LPIPS (worst)", cells.lpips)
CLIP = Column("CLIP (worst)", cells.clip)
PROMPTS = Column(PROMPT, cells.prompt)


def quality_table(view: View) -> TextTable | None:
    """Lay out the COMPLETE trials of `view`, in their order; None where no image was judged."""
    complete = view.complete
    has_ms_ssim = any(row.ms_ssim_mean is not None for row in complete)
    has_lpips = any(row.lpips_mean is not None for row in complete)
    has_clip = any(row.clip_mean is not None for row in complete)
    has_prompts = any(row.prompt_fidelity_mean is not None for row in complete)
    compared = any(row.ssim_mean is not None for row in complete)
    if not (compared or has_clip or has_prompts):
        return None
    meant = (
        "PSNR and SSIM: likeness to the reference's images, mean (worst image in brackets). PSNR is that of the mean "
        "squared error over all images; one that is identical has none, and counts as 100 dB. "
        "Latent error: ‖latent − reference's‖ / ‖reference's‖, before decoding."
    )
    optional = (
        (MS_SSIM, has_ms_ssim, "MS-SSIM: SSIM over five scales."),
        (LPIPS, has_lpips, "LPIPS: perceptual difference from the reference's images, 0 is none."),
        (CLIP, has_clip, "CLIP: how well the image fits its prompt's text, of 100."),
        (PROMPTS, has_prompts, ""),  # the main table says what it is
    )
    columns = [*ALWAYS, *(column for column, shown, _ in optional if shown)]
    return TextTable(
        head=table_head(complete),
        headers=tuple(column.header for column in columns),
        aligns=tuple(column.align for column in columns),
        rows=tuple(tuple(column.cell(row) for column in columns) for row in complete),
        legend=(
            " ".join([meant, *(text for _, shown, text in optional if shown and text)]),
            *_quantised(view),
            *_noise_floors(complete),
        ),
    )


def _quantised(view: View) -> list[str]:
    """That what is quantised is held to what is not."""
    computes = [record.trial.compute for row, record in view.pairs if row.state == "COMPLETE"]
    knobs = [f"{quantization.KEY}={c.quantization}" for c in computes if c.quantization != quantization.NONE]
    knobs += [f"{attention.KEY}={c.attention_backend}" for c in computes if attention.label(c.attention_backend)]
    said = "is judged against the reference's images, in which nothing is quantised."
    return [f"{knob} {said}" for knob in dict.fromkeys(knobs)]


def _noise_floors(complete: Sequence[TrialFigures]) -> list[str]:
    """A sentence each reference."""
    references = [row for row in complete if row.is_reference]
    said = [_noise_floor(row, "the reference" if len(references) == 1 else row.label) for row in references]
    return [f"Noise floor: {text}." for text in said if text]


def _noise_floor(row: TrialFigures, name: str) -> str | None:
    if row.noise_identical:
        return f"made twice, {name} gives identical images"
    why = row.why_missing("noise_floor")
    if row.noise_ssim_worst is None:
        return f"{name} was not made twice ({why}), so it is not known" if why else None
    decibels = "" if row.noise_psnr_worst_db is None else f" and PSNR at least {_down(row.noise_psnr_worst_db, 1)} dB"
    ssim = _down(row.noise_ssim_worst, _decimals(row.noise_ssim_worst))
    return f"made twice, {name} gives images of SSIM at least {ssim}{decibels}; what lies above is reported as none"


def _decimals(ssim: float) -> int:
    """Enough for what is lacking to 1 to be seen."""
    return 3 if ssim >= 1 else max(3, math.ceil(-math.log10(1 - ssim)))


def _down(value: float, decimals: int) -> str:
    """Rounded down: it is a floor."""
    return f"{math.floor(round(value * 10**decimals, 6)) / 10**decimals:.{decimals}f}"
