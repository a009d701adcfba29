"""A table of finished cells, and how it reads as Markdown, terminal text and CSV; it knows no trial.

rich says how many columns a terminal gives to a text, Chinese and emoji included. The layout is our own: rich's tables
take a millisecond a row. So is Markdown: rich's box says no alignment, pads every cell, and escapes nothing.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rich.cells import cell_len

from zbench.sanitize import csv_cell, printable

Align: TypeAlias = Literal["left", "right"]

LEFT: Align = "left"
RIGHT: Align = "right"


@dataclass(frozen=True)
class TextTable:
    """A table of finished cells, with the lines above and below it; its headers are zbench's own words."""

    head: tuple[str, ...]
    headers: tuple[str, ...]
    aligns: tuple[Align, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[str, ...]


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
    """Plain text as wide as the table needs, without colours; no table where there is no row.

    Nothing in a cell is read as rich's markup, and nothing in any text as a command to the terminal (`printable`).
    """
    head, legend = (list(map(printable, lines)) for lines in (table.head, table.legend))
    if not table.rows:
        return "\n".join([*head, *legend]) + "\n"
    rows = [table.headers, *(tuple(map(printable, row)) for row in table.rows)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    body = [_text_row(row, widths, table.aligns) for row in rows]
    body.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join([*head, *body, "", *legend]) + "\n"


def _text_row(row: Sequence[str], widths: Sequence[int], aligns: Sequence[Align]) -> str:
    cells = []
    for text, width, align in zip(row, widths, aligns, strict=True):
        room = " " * (width - cell_len(text))
        cells.append(room + text if align == RIGHT else text + room)
    return "  ".join(cells).rstrip()


def markdown_text(text: str) -> str:
    """One line that GitHub shows literally: nothing in it is read as Markdown, HTML or mathematics.

    An underscore within a word is left as it is: it means nothing there, and labels are full of them.
    """
    text = printable(" ".join(text.split()))
    text = re.sub(r"[\\`*#~|$\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    text = re.sub(r"^(\d+(?=[.)](\s|$))|(?=[-+=]))(.)", r"\1\\\3", text)  # a list, a rule, a heading's underline
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_code(text: str) -> str:
    """The same as code, on one line."""
    return f"`{printable(' '.join(text.split())).replace(chr(96), chr(39))}`"


def rows_to_csv(rows: Iterable[Mapping[Any, object]], columns: Sequence[str], *, header: bool = True) -> str:
    """Flat dicts whose keys are `columns` as CSV, with its header even if there are none; None is an empty field.

    No cell is a formula to a spreadsheet (`csv_cell`).
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(columns), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _markdown_row(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"
