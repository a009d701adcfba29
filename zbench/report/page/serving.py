"""The part of a report about trials under load: their table, the pages' tables, rates, and bench_serving's blocks."""

from dataclasses import dataclass

from zbench.analysis.rates import rate_curves
from zbench.analysis.view import View
from zbench.report.tables.serving import load_of, load_table, page_table, published_page_table, rate_table
from zbench.report.tables.text_table import TextTable, to_markdown, to_text
from zbench.report.text import cells
from zbench.report.text.serving import bench_serving_block, page_block

MOST_BLOCKS = 8
"""Trials whose block is shown; figures of the others stand in the table."""


@dataclass(frozen=True)
class ServingSection:
    """What is said of load: tables by title, and printed blocks by the label of their trial."""

    tables: tuple[tuple[str, TextTable], ...]
    blocks: tuple[tuple[str, str], ...]


def serving_section(view: View) -> ServingSection | None:
    """None where no trial was under load."""
    loads = load_table(view)
    if loads is None:
        return None
    tables = [("Trials under load", loads)]
    page = page_table(view)
    if page is not None:
        tables += [("One request, then 20 at once", page), ("The same protocol, published", published_page_table())]
    tables += [(f"Rates: {curve.setting}", rate_table(curve)) for curve in rate_curves(view)]
    return ServingSection(tuple(tables), tuple(_blocks(view, MOST_BLOCKS)))


def in_terminal(view: View, form: str) -> str:
    """What follows the main table on stdout, as text or Markdown: the tables, and the block of a single trial."""
    section = serving_section(view)
    if section is None:
        return ""
    markdown = form == "markdown"
    parts = [
        f"### {title}\n\n{to_markdown(table)}" if markdown else f"{title}\n\n{to_text(table)}"
        for title, table in section.tables
    ]
    blocks = _blocks(view, 2)
    if len(blocks) == 1:
        parts.append(f"```text\n{blocks[0][1]}\n```" if markdown else blocks[0][1])
    return "\n\n".join(part.rstrip("\n") for part in parts)


def _blocks(view: View, most: int) -> list[tuple[str, str]]:
    """Of `workload=b300_page` in the form of the page, else in that of sglang 0.5.23."""
    blocks: list[tuple[str, str]] = []
    for row, record in view.pairs:
        load = load_of(record)
        if load is not None and len(blocks) < most:
            block = page_block if record.trial.workload.name == "b300_page" else bench_serving_block
            blocks.append((cells.label(row), block(record, load)))
    return blocks
