"""`zbench published` as a user runs it: the tables that others have published, without any run."""

import json

import pytest

from zbench.cli import main
from zbench.hardware.published import published_figures, published_for


def test_every_figure_and_the_pages_protocol_are_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["published"]) == 0
    out = capfd.readouterr().out
    assert all(figure.device in out for figure in published_figures())
    durations = [f"{run['duration_s']:.2f}" for figure in published_figures() for run in figure.serving]
    assert "first image, s" in out and durations and all(duration in out for duration in durations)


def test_one_device_alone_can_be_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "h200", "--format", "json"]) == 0
    assert [row["id"] for row in json.loads(capfd.readouterr().out)] == [f.id for f in published_for("h200")]
    assert main(["published", "h200", "--format", "markdown"]) == 0
    out = capfd.readouterr().out
    assert "| device |" in out and "first image, s" not in out, "nobody served on it"


def test_a_device_of_which_nothing_is_published_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "rtx"]) == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        "zbench: error: hardware rtx: nothing is published of it here; there are b300, h100, h200, mi300x"
    )
