"""What is shown while a pipeline loads, with a clock of our own."""

from io import StringIO
from typing import Any

from factories import trial
from rich.console import Console

from zbench.search import Foresight
from zbench.space import Placed
from zbench.sweeper.loading_bar import LoadingBar
from zbench.sweeper.progress import SweepProgress, describe

BEGIN: dict[str, Any] = {"event": "loading"}


def told(done_gb: float, stage: str = "checking") -> dict[str, Any]:
    return {"event": "loading", "stage": stage, "done_bytes": int(done_gb * 1e9), "total_bytes": int(40e9)}


def drawn(bar: LoadingBar) -> str:
    out = StringIO()
    Console(file=out, width=120).print(bar.progress.get_renderable())
    return out.getvalue()


def test_a_terminal_shows_bytes_speed_and_time_left() -> None:
    now = [0.0]
    bar = LoadingBar(Console(file=StringIO(), force_terminal=True), clock=lambda: now[0])
    bar.event("none", BEGIN)
    assert not bar.shown, "nothing is known yet"
    for second in range(5):
        now[0] = float(second)
        bar.event("none", told(2.0 * second))
    text = drawn(bar)
    assert "checking weights" in text and "8.0/40.0 GB" in text and "2.0 GB/s" in text and "0:00:16" in text
    bar.event("none", told(30.0, "loading"))
    assert "loading weights" in drawn(bar)
    bar.event("none", {"event": "loaded", "load_s": 5.0})
    assert not bar.shown


def test_elsewhere_a_short_load_is_silent_and_a_long_one_is_one_line() -> None:
    now, out = [0.0], StringIO()
    bar = LoadingBar(Console(file=out, width=200), clock=lambda: now[0])
    for length_s, lines in ((4, 0), (30, 1)):
        now[0] = 0.0
        bar.event("none", BEGIN)
        for second in range(length_s):
            now[0] = float(second)
            bar.event("none", told(second))
        bar.event("none", {"event": "loaded", "load_s": 1.0})
        assert len(out.getvalue().splitlines()) == lines
    assert out.getvalue().startswith("none: checking weights, 6 of 40 GB")


def test_the_bar_is_part_of_a_sweeps_display_only_while_it_loads() -> None:
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    progress, placed = SweepProgress(Foresight(1, 1), console), Placed(trial(), trial().trial_id, trial().trial_id)
    progress.started(placed)
    shown = []
    for event in (BEGIN, told(8.0), {"event": "loaded", "load_s": 1.0}):
        progress.event(placed, event)
        out.seek(0)
        out.truncate()
        console.print(progress._render())
        shown.append("8.0/40.0 GB" in out.getvalue())
    assert shown == [False, True, False]
    assert describe(told(8.0)) == "checking weights" and describe(BEGIN) == "loading"


def test_what_has_no_size_is_a_line_each_time_that_it_waits_for_another_thing() -> None:
    clock, out = [0.0], StringIO()
    bar = LoadingBar(Console(file=out, width=200), lambda: clock[0])

    def waits(stage: str, at_s: float) -> None:
        clock[0] = at_s
        bar.event("none", {"event": "loading", "stage": stage, "done_bytes": 0, "total_bytes": 0})

    bar.event("none", {"event": "loading"})
    waits("waiting for the server to start", 1.0)
    assert out.getvalue() == "" and not bar.shown
    for at_s in (6.0, 7.0):
        waits("waiting for the server to start", at_s)
    waits("waiting for the server to make its first image", 9.0)
    assert out.getvalue().splitlines() == [
        "none: waiting for the server to start",
        "none: waiting for the server to make its first image",
    ]
