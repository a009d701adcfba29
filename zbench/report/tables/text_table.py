"""A table of finished cells, and how it reads as Markdown, terminal text and CSV; it knows no trial.

rich lays out terminal text, so that Chinese and emoji take the columns that a terminal gives them. Markdown is our
own: rich's Markdown box says no alignment, pads every cell, and neither rich nor tabulate escapes what is in a cell.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from zbench.sanitize import csv_cell, printable

Align: TypeAlias = Literal["left", "right"]

LEFT: Align = "left"
RIGHT: Align = "right"
ENDLESS = 1_000_000  # columns: a table is as wide as it needs, whatever the terminal


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
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header, align in zip(table.headers, table.aligns, strict=True):
        grid.add_column(Text(header), justify=align, no_wrap=True)
    grid.add_row(*[Rule(characters="─")] * len(table.headers))
    for row in table.rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(file=io.StringIO(), width=ENDLESS, color_system=None, force_terminal=False, force_jupyter=False)
    with console.capture() as capture:
        console.print(grid)
    body = [line.rstrip() for line in capture.get().rstrip("\n").split("\n")]
    return "\n".join([*head, *body, "", *legend]) + "\n"


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
