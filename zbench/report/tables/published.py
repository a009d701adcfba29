"""Published figures beside a sweep's, each with its kind and steps; never in one row with what the sweep measured."""

from collections.abc import Iterable, Mapping, Sequence

from zbench.composition import profile_patterns
from zbench.hardware.detect import profile_of
from zbench.hardware.published import PublishedFigure, published_for
from zbench.record import Record
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable
from zbench.report.text import cells

PRESET = "zimage_turbo"  # whose figures were published
KINDS = {"measured": "published, measured", "ci_threshold": "published, CI limit"}
HEADERS = ("device", "setting", "kind", "steps", "image, s", "step, s", "peak memory", "software", "where")
ALIGNS = (LEFT, LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT, LEFT, LEFT)


def published_table(records: Iterable[Record]) -> TextTable | None:
    """Rows for the hardware that `records` of Z-Image-Turbo were measured on or projected onto; None if nothing is
    known of it."""
    names = dict.fromkeys(name for r in records if (name := _profile(r)) is not None)
    figures = [figure for name in names for figure in published_for(name)]
    return figures_table(figures) if figures else None


def figures_table(figures: Sequence[PublishedFigure]) -> TextTable:
    """A row for each."""
    notes = {note: i for i, note in enumerate(dict.fromkeys(_line(f.note) for f in figures if f.note), 1)}
    return TextTable((), HEADERS, ALIGNS, tuple(_row(f, notes) for f in figures), tuple(_legend(figures, notes)))


def _profile(record: Record) -> str | None:
    """The profile of the hardware that a record's figures are of; None for other pipelines and for CPUs."""
    if record.trial.pipeline.preset != PRESET:
        return None
    if record.trial.hardware is not None:
        return record.trial.hardware.name
    devices = record.environment.get("devices") or ()
    return profile_of(devices[0]["name"], profile_patterns()) if devices else None


def _legend(figures: Sequence[PublishedFigure], notes: Mapping[str, int]) -> list[str]:
    lines = ["Published figures are not this sweep's: other software, other settings. Images are warm ones."]
    if any(figure.kind == "ci_threshold" for figure in figures):
        lines.append("CI limit: the most that a CI allows; what it measures lies below.")
    if any(figure.steps is None for figure in figures):
        lines.append(f"Steps {cells.ABSENT}: a single forward was published, or the number was not.")
    return lines + [f"[{i}] {note}" for note, i in notes.items()]


def _row(figure: PublishedFigure, notes: Mapping[str, int]) -> tuple[str, ...]:
    steps = cells.ABSENT if figure.steps is None else str(figure.steps)
    if figure.skipped_steps:
        steps += f" ({figure.skipped_steps} skipped)"
    return (
        f"{figure.count} × {figure.device}",
        f"{figure.setting} [{notes[_line(figure.note)]}]" if figure.note else figure.setting,
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
