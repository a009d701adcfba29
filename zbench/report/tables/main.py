"""The main table, one row a COMPLETE trial, as Markdown, terminal text, CSV or JSON.

Every rendering says in its head where figures are not validated on Z-Image-Turbo. Refuses to show
FAILED and PRUNED trials as if they had figures: they are counted here and listed by the report.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from zbench.analysis.figures import NOT_VALIDATED, TrialSummary, summarise, summarise_trials
from zbench.measurement import RANDOM_WEIGHTS
from zbench.record import Record
from zbench.report.text import cells

LEFT = "left"
RIGHT = "right"
MEMORY = "peak memory"
PROMPT = "prompt (worst)"
ENERGY = "J an image"
PSNR = "PSNR, dB"
SSIM = "SSIM (worst)"
PROMPT_MEANS = (
    "Prompt: share of the attributes asked for (shape, colour, size, place, count, background, word) that the scene "
    "reader finds right, mean (worst image in brackets)."
)


@dataclass(frozen=True)
class Column:
    """A header, what stands under it, and on which side."""

    header: str
    cell: Callable[[TrialSummary], str]
    align: str = RIGHT


COLUMNS = (
    Column("trial", cells.label, LEFT),
    Column("latency, s [95 %]", cells.latency),
    Column("p90, s", lambda row: cells.seconds(row.latency_p90_s, row.latency_source)),
    Column("speed-up", cells.speedup),
    Column("images/s", cells.images_per_s),
    Column(MEMORY, cells.memory),
    Column(ENERGY, cells.energy),
    Column("cached steps", cells.cached_steps),
    Column(PSNR, cells.psnr),
    Column(SSIM, cells.ssim),
    Column(PROMPT, cells.prompt),
)


@dataclass(frozen=True)
class TextTable:
    """A table of finished cells, with the lines above and below it."""

    head: tuple[str, ...]
    headers: tuple[str, ...]
    aligns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[str, ...]


def main_table(trials: Sequence[TrialSummary]) -> TextTable:
    """Lay out the COMPLETE ones of `trials`, in their order."""
    complete = [row for row in trials if row.state == "COMPLETE"]
    columns = [_memory_column(complete) if column.header == MEMORY else column for column in COLUMNS]
    if not _knows_prompts(complete):
        columns = [column for column in columns if column.header != PROMPT]
    if _random_weights(complete):
        columns = [column for column in columns if column.header not in (PSNR, SSIM)]
    if all(row.joules_an_image is None for row in complete):
        columns = [column for column in columns if column.header != ENERGY]
    return TextTable(
        head=table_head(complete),
        headers=tuple(column.header for column in columns),
        aligns=tuple(column.align for column in columns),
        rows=tuple(tuple(column.cell(row) for column in columns) for row in complete),
        legend=_legend(trials, complete),
    )


def table_head(trials: Sequence[TrialSummary]) -> tuple[str, ...]:
    """What must be said above figures that were not measured on the model asked for; nothing if all were."""
    kinds = {s for row in trials for s in _sources(row)}
    said = []
    if "projected" in kinds:
        said.append(f"{cells.PROJECTED_MARK} projected: computed by a roofline, for hardware that is not here")
    if "proxy" in kinds:
        said.append(f"{cells.PROXY_MARK} proxy: measured on a smaller model than the one asked for")
    return (f"{NOT_VALIDATED[0].upper()}{NOT_VALIDATED[1:]}: {'; '.join(said)}.",) if said else ()


def to_markdown(table: TextTable) -> str:
    """GitHub's table, the head above it in bold, the legend below; no table where there is no row."""
    lines = [f"**{markdown_text(line)}**\n" for line in table.head]
    if not table.rows:
        return "\n".join([*lines, "\n\n".join(map(markdown_text, table.legend))]) + "\n"
    lines.append(_markdown_row(table.headers))
    lines.append(_markdown_row(["---:" if align == RIGHT else ":---" for align in table.aligns]))
    lines += [_markdown_row([markdown_text(cell) for cell in row]) for row in table.rows]
    lines += [f"\n{markdown_text(line)}" for line in table.legend]
    return "\n".join(lines) + "\n"


def to_text(table: TextTable) -> str:
    """Plain text as wide as the table needs, without colours; no table where there is no row."""
    if not table.rows:
        return "\n".join([*table.head, *table.legend]) + "\n"
    widths = [max(map(len, column)) for column in zip(table.headers, *table.rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if align == LEFT else cell.rjust(width)
            for cell, width, align in zip(row, widths, table.aligns, strict=True)
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    body = [line(table.headers), rule, *(line(row) for row in table.rows)]
    return "\n".join([*table.head, *body, "", *table.legend]) + "\n"


def to_csv(records: Sequence[Record]) -> str:
    """Raw figures of every trial, FAILED and PRUNED included; an absent one is an empty field."""
    return summarise(records).to_csv(index=False, lineterminator="\n")


def to_json(records: Sequence[Record]) -> str:
    """Raw figures of every trial as JSON without NaN; `head` says what was not validated."""
    trials = summarise_trials(records)
    rows = [{**asdict(row), "missing": dict(row.missing)} for row in trials]
    data = {"head": list(table_head(trials)), "trials": rows}
    return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def render(records: Sequence[Record], form: str) -> str:
    """The table in one of FORMS, which the command line offers as `--format`; no line feed at its end."""
    return FORMS[form](records).rstrip("\n")


FORMS: dict[str, Callable[[Sequence[Record]], str]] = {
    "table": lambda records: to_text(main_table(summarise_trials(records))),
    "markdown": lambda records: to_markdown(main_table(summarise_trials(records))),
    "csv": to_csv,
    "json": to_json,
}


def markdown_text(text: str) -> str:
    """One line that GitHub shows literally: nothing in it is read as Markdown, HTML or mathematics.

    An underscore within a word is left as it is: it means nothing there, and labels are full of them.
    """
    text = " ".join(text.split())
    text = re.sub(r"[\\`*#~|$\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    text = re.sub(r"^(\d+(?=[.)](\s|$))|(?=[-+=]))(.)", r"\1\\\3", text)  # a list, a rule, a heading's underline
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def rows_to_csv(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> str:
    """Flat dicts whose keys are `columns` as CSV, with its header even if there are none; None is an empty field."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _memory_column(complete: Sequence[TrialSummary]) -> Column:
    """Which peak is meant stands in the header if it is the same everywhere, else in each cell."""
    kinds = {row.memory_kind for row in complete if row.memory_kind is not None}
    if len(kinds) != 1:
        return Column(MEMORY, cells.memory)
    return Column(f"{MEMORY} ({kinds.pop()})", lambda row: cells.memory(row, with_kind=False))


def _random_weights(complete: Sequence[TrialSummary]) -> bool:
    return bool(complete) and all(row.why_missing("quality") == RANDOM_WEIGHTS for row in complete)


def _knows_prompts(complete: Sequence[TrialSummary]) -> bool:
    return any(row.prompt_fidelity_mean is not None for row in complete)


def _markdown_row(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def _sources(row: TrialSummary) -> tuple[str | None, ...]:
    return row.latency_source, row.memory_source, row.cached_steps_source, row.quality_source


def _legend(trials: Sequence[TrialSummary], complete: Sequence[TrialSummary]) -> tuple[str, ...]:
    lines = []
    if complete:
        likeness = "PSNR and SSIM: likeness to the baseline's images, mean (worst image in brackets)."
        lines.append(
            "Latency: median of the warm rounds with its 95 % interval. Speed-up: the baseline's time for the whole "
            "workload over the trial's, from the median of each prompt and seed. Cached steps: mean an image. "
            + ("Weights are random, so nothing is said of images." if _random_weights(complete) else likeness)
        )
    if any(row.images > 1 for row in complete):
        lines.append("Where a call makes several images, latency is the call's.")
    if _knows_prompts(complete):
        lines.append(PROMPT_MEANS)
    if any(row.within_noise and not row.is_identical for row in complete):
        lines.append(
            "Under noise: no image differs from the baseline's by more than the baseline's own do from one run to the "
            "next."
        )
    if any(row.latency_low_s is not None for row in complete):
        lines.append("Rounds go on until the interval is tight, so its 95 % is nominal.")
    if any(row.latency_low_s is None and row.latency_source != "projected" for row in complete):
        lines.append("Without an interval: fewer than 6 rounds, of which none has 95 % coverage.")
    limited = [row.power_limited for row in complete if row.power_limited]
    if limited:
        low, high = cells.percent(min(limited)), cells.percent(max(limited))
        share = low if low == high else f"{low} to {high}"
        lines.append(f"The GPU was at its power limit in {share} of the samples, which then sets its clock.")
    doubted: dict[str, list[str]] = {}
    for row in complete:
        if row.caveats:
            doubted.setdefault("; ".join(row.caveats), []).append(row.label)
    lines += [f"{cells.UNTRUSTED_MARK} {', '.join(labels)}: {why}." for why, labels in doubted.items()]
    for state, word in (("FAILED", "failed"), ("PRUNED", "pruned before launch")):
        number = sum(row.state == state for row in trials)
        if number:
            lines.append(f"{cells.trials(number)} {word}.")
    return tuple(lines)
