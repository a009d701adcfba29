"""Writes a report's files; the only module of the report that touches a disk for writing.

Refuses to leave half a file: each appears whole or not at all.
"""

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from zbench.analysis.view import View
from zbench.errors import RecordError
from zbench.record import Record
from zbench.report.page.content import Page, make_page
from zbench.report.page.html import render_html
from zbench.report.page.markdown import render_markdown
from zbench.report.page.pixels import strip_jpeg
from zbench.report.tables.main import to_csv
from zbench.store import write_whole


def sweep_folders(runs: Iterable[tuple[Path, Sequence[Record]]]) -> dict[str, Path]:
    """Sweep name to run folder, from each journal and its records.

    Raises RecordError naming two different journals that share a sweep's name: which trial is whose could not be
    told.
    """
    journals: dict[str, Path] = {}
    for journal, records in runs:
        for sweep in dict.fromkeys(record.sweep for record in records):
            first = journals.setdefault(sweep, journal)
            if first.resolve() != journal.resolve():
                raise RecordError(
                    f"{first} and {journal} both hold records of the sweep {sweep!r}; report them apart, or measure "
                    "one of them under another sweep.name="
                )
    return {sweep: journal.parent for sweep, journal in journals.items()}


def preload() -> None:
    """Import what a report will need, so that whoever waits for something else need not wait for that afterwards."""
    with suppress(Exception):  # whoever needs it says what is wrong with it
        for name in ("pandas", "jinja2", "matplotlib.figure", "matplotlib.backends.backend_agg", "adjustText"):
            importlib.import_module(name)


def write_report(view: View, run_folders: Mapping[str, Path], out: Path) -> list[Path]:
    """Write report.md, report.html, summary.csv and their pictures into `out`; returns their paths.

    Images come from `run_folders`, sweep name to run folder. Raises RecordError without records, StoreError naming
    a folder that cannot be written.
    """
    if not view.records:
        raise RecordError("no records to report on; run zbench sweep first")
    page = make_page(view, run_folders)
    files: dict[str, bytes] = {plot.file_name: plot.png for plot in page.plots}
    strip_files = _strip_files(page)
    files |= {path: jpeg for path, jpeg in strip_files.values()}
    files["summary.csv"] = to_csv(view).encode()
    files["report.md"] = render_markdown(page, {title: path for title, (path, _) in strip_files.items()}).encode()
    files["report.html"] = render_html(page).encode()
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
            title = strip.title if strip.title not in files else f"{strip.title} ({strip.pictures[0].label})"
            files[title] = (f"images/{number:02d}-{safe}-{strip.seed}.jpg", jpeg)
    return files
