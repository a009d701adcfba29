"""Writes a report's files; the only module of the report that touches a disk for writing.

Refuses to leave half a file: each appears whole or not at all.
"""

import importlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from zbench.analysis.view import View
from zbench.errors import RecordError
from zbench.files import write_whole
from zbench.report.page.content import Page, make_page
from zbench.report.page.html import render_html
from zbench.report.page.markdown import render_markdown
from zbench.report.page.pixels import strip_jpeg
from zbench.report.tables.main import to_csv

MOST_NAME = 100
"""Characters of a prompt's id in the name of a file."""


def preload() -> None:
    """Import what a report will need, so that whoever waits for something else need not wait for that afterwards."""
    with suppress(Exception):  # whoever needs it says what is wrong with it
        for name in ("jinja2", "matplotlib.figure", "matplotlib.backends.backend_agg", "adjustText"):
            importlib.import_module(name)


def write_report(view: View, run_folders: Mapping[str, Path], out: Path) -> list[Path]:
    """Write report.md, report.html, summary.csv and their pictures into `out`; returns their paths.

    Images come from `run_folders`, sweep name to run folder. Raises RecordError without records, StoreError naming
    a folder that cannot be written.
    """
    if not view.trials:
        raise RecordError("no records to report on; run zbench sweep first")
    page = make_page(view, run_folders)
    files: dict[str, bytes] = {plot.file_name: plot.png for plot in page.plots}
    strip_files = _strip_files(page)
    files |= {path: jpeg for path, jpeg in strip_files.values()}
    files["summary.csv"] = _encoded(to_csv(view))
    files["report.md"] = _encoded(render_markdown(page, {title: path for title, (path, _) in strip_files.items()}))
    files["report.html"] = _encoded(render_html(page))
    for name, data in files.items():
        write_whole(out / name, data, "choose another folder with --out or sweep.reports_dir=")
    return [out / name for name in files]


def _strip_files(page: Page) -> dict[str, tuple[str, bytes]]:
    """Title of each strip that can be read, to its path beside the report and its bytes."""
    files: dict[str, tuple[str, bytes]] = {}
    for number, strip in enumerate(page.strips, start=1):
        jpeg = strip_jpeg(strip)
        if jpeg is not None:
            safe = re.sub(r"[^A-Za-z0-9._-]+", "_", strip.prompt_id).strip("._") or "prompt"
            safe = safe[:MOST_NAME]
            title = strip.title if strip.title not in files else f"{strip.title} ({strip.pictures[0].label})"
            files[title] = (f"images/{number:02d}-{safe}-{strip.seed}.jpg", jpeg)
    return files


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # an unpaired surrogate is no character
