"""A report on records from anywhere says what is in them and does nothing of it."""

import csv
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from factories import complete, failed, pruned, trial
from hostile import HOSTILE, RAW_HTML, commands_to_ci, unseen
from markdown_it import MarkdownIt
from PIL import Image

from zbench.analysis.view import View, view_of
from zbench.config import DBCacheConfig, Prompt, WorkloadConfig
from zbench.export import FORMATS
from zbench.quality.artifacts import image_path
from zbench.record import Reason, Record
from zbench.report.page.write import write_report
from zbench.report.tables.main import FORMS, render
from zbench.report.tables.text_table import rows_to_csv
from zbench.store import artifacts_folder

WORKLOAD = WorkloadConfig(name="evil", prompts=[Prompt(id="p\x1b[1m<b>", text=HOSTILE)], seeds=[0])


def evil(record: Record, begins: str) -> Record:
    reason = record.reason and Reason(f"code{HOSTILE}", f"message{HOSTILE}", (f"tail{HOSTILE}",))
    environment = {**record.environment, "cpu": HOSTILE, "os": HOSTILE}
    return replace(record, label=begins + HOSTILE, environment=environment, command=HOSTILE, reason=reason)


@pytest.fixture(scope="module")
def hostile() -> View:
    records = [
        complete(trial(workload=WORKLOAD)),
        complete(trial(DBCacheConfig(), workload=WORKLOAD), latency_s=0.7, ssim=0.97, validity=[HOSTILE]),
        failed(trial(DBCacheConfig(max_warmup_steps=2), workload=WORKLOAD)),
        pruned(trial(DBCacheConfig(max_warmup_steps=3), workload=WORKLOAD)),
    ]
    return view_of([evil(record, begins) for record, begins in zip(records, ("", "::error::", "@", "-"), strict=True)])


@pytest.fixture(scope="module")
def folder(hostile: View, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with images."""
    run = tmp_path_factory.mktemp("hostile")
    for row in hostile.complete:
        path = image_path(artifacts_folder(run, row.trial_id), WORKLOAD.prompts[0].id, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(path)
    write_report(hostile, {"demo": run}, run / "out")
    return run / "out"


def test_markdown_lets_no_html_out(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    tokens = [
        child
        for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
        for child in [token, *(token.children or [])]
    ]
    assert not {token.type for token in tokens} & {"html_inline", "html_block", "link_open", "fence"}
    images = [str(token.attrs["src"]) for token in tokens if token.type == "image"]
    assert any(src.startswith("images/") for src in images)
    assert all((folder / src).is_file() for src in images), "an image from a record"
    assert "pwned" in text and not unseen(text) and not commands_to_ci(text)


class Tags(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}
        assert all(value is None or not value.startswith(("http", "javascript")) for _, value in attrs)


def test_html_is_escaped_and_every_character_of_it_is_seen(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert not tags.found & {"script", "onerror", "a", "b"}
    assert "pwned" in text and not unseen(text) and not commands_to_ci(text)
    assert not any(tag in text for tag in RAW_HTML)


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_the_table_speaks_to_a_terminal_or_a_ci(form: str, hostile: View) -> None:
    text = render(hostile, form)
    assert "pwned" in text and not unseen(text) and not commands_to_ci(text)


@pytest.mark.parametrize("form", ["csv", "csv-rounds"])
def test_no_cell_of_a_csv_is_a_formula(form: str, hostile: View) -> None:
    text = "".join(FORMATS[form](hostile))
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert any(cell.startswith("'=1+1") for cell in cells)
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]
    assert not unseen(text) and not commands_to_ci(text)


@pytest.mark.parametrize("form", ["pytest-benchmark", "bencher", "github-action-benchmark"])
def test_no_export_speaks_to_a_terminal_or_a_ci(form: str, hostile: View) -> None:
    text = "".join(FORMATS[form](hostile))
    assert "pwned" in text and not unseen(text) and not commands_to_ci(text)


def test_a_negative_figure_stays_a_number() -> None:
    assert (
        rows_to_csv([{"a": -3.5, "b": "-3.5", "c": "-3.5 dB", "d": None}], "abcd") == "a,b,c,d\n-3.5,-3.5,'-3.5 dB,\n"
    )
