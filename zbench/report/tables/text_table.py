"""A table of finished cells, and how it reads as Markdown, terminal text and CSV; it knows no trial."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

LEFT = "left"
RIGHT = "right"


@dataclass(frozen=True)
class TextTable:
    """A table of finished cells, with the lines above and below it."""

    head: tuple[str, ...]
    headers: tuple[str, ...]
    aligns: tuple[str, ...]
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


def _markdown_row(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"
