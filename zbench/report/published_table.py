"""Published figures beside a projection, each with its kind and steps; never in one row with what a sweep measured."""

from collections.abc import Sequence

from zbench.hardware.published import PublishedFigure, published_for
from zbench.record import Record
from zbench.report import cells
from zbench.report.table import LEFT, RIGHT, TextTable

KINDS = {"measured": "published, measured", "ci_threshold": "published, CI limit"}
HEADERS = ("device", "setting", "kind", "steps", "image, s", "step, s", "peak memory", "software", "where")
ALIGNS = (LEFT, LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT, LEFT, LEFT)


def published_table(records: Sequence[Record]) -> TextTable | None:
    """Rows for the hardware that `records` were projected onto; None if nothing was, or nothing is known."""
    names = dict.fromkeys(hardware["name"] for r in records if (hardware := r.config.get("hardware")))
    figures = [figure for name in names for figure in published_for(name)]
    if not figures:
        return None
    return TextTable((), HEADERS, ALIGNS, tuple(map(_row, figures)), tuple(_legend(figures)))


def _legend(figures: Sequence[PublishedFigure]) -> list[str]:
    lines = ["Published figures are not this sweep's: other software, other settings. Images are warm ones."]
    if any(figure.kind == "ci_threshold" for figure in figures):
        lines.append("CI limit: the most that a CI allows; what it measures lies below.")
    if any(figure.steps is None for figure in figures):
        lines.append(f"Steps {cells.ABSENT}: a single forward was published, or the number was not.")
    settings: dict[str, list[str]] = {}
    for figure in figures:
        if figure.note:
            settings.setdefault(_line(figure.note), []).append(figure.setting)
    return lines + [f"{'; '.join(dict.fromkeys(of))}: {note}" for note, of in settings.items()]


def _row(figure: PublishedFigure) -> tuple[str, ...]:
    steps = cells.ABSENT if figure.steps is None else str(figure.steps)
    if figure.skipped_steps:
        steps += f" ({figure.skipped_steps} skipped)"
    return (
        f"{figure.count} × {figure.device}",
        figure.setting,
        KINDS[figure.kind],
        steps,
        cells.seconds(figure.image_s, None),
        cells.seconds(figure.step_s, None),
        cells.ABSENT if figure.peak_memory_mb is None else cells.gib(figure.peak_memory_mb * 2**20),
        figure.software,
        _line(figure.where),
    )


def _line(text: str) -> str:
    return " ".join(text.split())
