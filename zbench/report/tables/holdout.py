"""The table of masks that were judged on other samples than they were chosen on: both figures side by side."""

from zbench.analysis.holdout import HeldOutMask, held_out_masks
from zbench.analysis.view import View
from zbench.report.tables.main import table_head
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable
from zbench.report.text import cells

TITLE = "Masks on samples that they were not chosen on"


def holdout_table(view: View) -> TextTable | None:
    """None where no mask was judged on both."""
    found = held_out_masks(view)
    if not found:
        return None
    samples = [dict.fromkeys(each.samples[side] for each in found) for side in (0, 1)]
    on, other = (f"on {' or '.join(map(str, numbers))}" for numbers in samples)
    headers: tuple[str, ...] = ("trial", "steps computed", "speed-up", f"SSIM (worst) {on}", f"{other} held out")
    has_prompts = any(each.held_out.prompt_fidelity_mean is not None for each in found)
    headers += (f"prompt (worst) {on}", f"{other} held out") if has_prompts else ()
    compared = [more for each in found if (more := _more_alike(each)) is not None]
    worse = [more for more in compared if more < 0]
    legend = (
        "A mask is chosen by its images of some samples, so those flatter it; on samples that had no part in that the "
        "figures are what to expect. Each image is likened to the reference's of the same sample.",
        f"Less alike on the samples held out, by the worst image: {len(worse)} of {cells.trials(len(compared))}.",
    )
    return TextTable(
        head=table_head([each.chosen for each in found]),
        headers=headers,
        aligns=(LEFT, *[RIGHT] * (len(headers) - 1)),
        rows=tuple(_row(each, has_prompts) for each in found),
        legend=legend,
    )


def _row(each: HeldOutMask, has_prompts: bool) -> tuple[str, ...]:
    sides = (each.chosen, each.held_out)
    computed = f"{each.mask.count('1')} of {len(each.mask)}"
    shown = (each.chosen.label, computed, cells.speedup(each.chosen), *map(cells.ssim, sides))
    return (*shown, *map(cells.prompt, sides)) if has_prompts else shown


def _more_alike(each: HeldOutMask) -> float | None:
    """How much more alike the worst image is on the samples held out."""
    if each.chosen.ssim_worst is None or each.held_out.ssim_worst is None:
        return None
    return each.held_out.ssim_worst - each.chosen.ssim_worst
