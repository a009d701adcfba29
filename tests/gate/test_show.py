"""What CIs are told is read as meant, whatever a record holds, and a CI that cannot be told changes no verdict."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from factories import complete, failed, trial
from hostile import HOSTILE, RAW_HTML, commands_to_ci, unseen
from markdown_it import MarkdownIt

from zbench.config import DBCacheConfig
from zbench.errors import Exit
from zbench.gate.judge import Assessment, assess
from zbench.gate.limits import parse_limit
from zbench.gate.show import FORMS, annotations, publish, render

LATENCY = [parse_limit("latency.median:3%")]
CACHED = trial(DBCacheConfig())


def hostile(begins: str = "") -> Assessment:
    """A trial that is slower, one that failed and one that is new, with labels and messages that try everything."""
    name = begins + HOSTILE
    base = [complete(trial(), n_rounds=24), complete(CACHED, n_rounds=24)]
    new = [
        complete(trial(), latency_s=1.3, n_rounds=24),
        failed(CACHED, code=HOSTILE, message=HOSTILE),
        complete(trial(DBCacheConfig(max_warmup_steps=2))),
    ]
    return assess([replace(r, label=name) for r in new], [replace(r, label=name) for r in base], LATENCY)


@pytest.mark.parametrize("begins", ["", "::error::", "\n::warning::"])
@pytest.mark.parametrize("form", FORMS)
def test_no_label_speaks_to_a_terminal_or_a_ci(form: str, begins: str) -> None:
    text = render(hostile(begins), form)
    assert "pwned" in text and not unseen(text) and not commands_to_ci(text)


def test_junit_is_xml_whatever_a_message_holds() -> None:
    text = render(hostile(), "junit")
    assert text.isascii()  # so that it is what it declares on a stdout of any encoding
    suite = ElementTree.fromstring(text)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    messages = [failure.get("message", "") for failure in suite.iter("failure")]
    assert any("]]>" in message and r"\x1b[2J" in message and r"\ufffe" in message for message in messages)
    label = "中文 é 😀"
    named = replace(complete(trial()), label=label)
    (case,) = ElementTree.fromstring(render(assess([named], [named], LATENCY), "junit"))
    assert case.get("classname") == label


def test_annotations_are_githubs_own_lines_and_nothing_else() -> None:
    lines = annotations(hostile())
    assert len(lines) == 2
    for line in lines:
        assert not unseen(line) and "\n" not in line and line.startswith("::error title=")
        title, _, message = line.removeprefix("::error title=").partition("::")  # GitHub's parser takes the first
        assert "," not in title and ":" not in title and "%0A" in title
        assert message.startswith(("SLOWER: New is +30.00 %25 against", "it FAILED: "))
    assert "%0A" in lines[0] and "%250A" in lines[0]  # a line feed, and what was typed as one


def test_the_markdown_of_a_verdict_is_text_alone() -> None:
    text = render(hostile(), "markdown")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<table>" in html and "<a " not in html and not any(tag in html for tag in RAW_HTML)


@pytest.mark.parametrize("place", ["missing/summary.md", "folder", "/dev/full"])
def test_an_unwritable_step_summary_is_a_warning(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / place
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assessment = hostile()
    publish(assessment)
    assert assessment.exit_code == Exit.REGRESSION
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("::error title=")]
    assert len(said) == 1 and said[0].startswith(f"warning: cannot append to GITHUB_STEP_SUMMARY={path}: ")


@pytest.mark.parametrize(("count", "named"), [(3, True), (4, False)])
def test_what_is_said_of_many_trials_is_said_once(count: int, named: bool) -> None:
    short = [complete(trial(DBCacheConfig(max_warmup_steps=n)), n_rounds=4) for n in range(1, count + 1)]
    text = render(assess(short, short, LATENCY), "table")
    assert text.count("Nothing can be said") == 1 and text.count("measure.min_rounds=") == 1
    assert (f"{count} trials latency.median: Nothing can be said" in text) is not named
    assert "where a " in text and " in all; measure more" in text
