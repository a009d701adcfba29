"""Progress of a load becomes a few events, with a clock of our own."""

from itertools import pairwise
from typing import Any

import pytest

from zbench.worker.loading import LoadingTalk


def test_events_are_at_least_a_fifth_of_a_second_apart() -> None:
    now, events = [0.0], list[tuple[float, dict[str, Any]]]()
    talk = LoadingTalk(lambda event: events.append((now[0], event)), clock=lambda: now[0])
    for step in range(101):
        now[0] = step / 50
        talk("checking", step, 200)
    times = [at for at, _ in events]
    assert 9 <= len(times) <= 11 and min(b - a for a, b in pairwise(times)) >= 0.2 - 1e-9
    assert events[0][1] == {"event": "loading", "stage": "checking", "done_bytes": 0, "total_bytes": 200}


def test_time_spent_on_checksums_is_known_apart() -> None:
    now = [0.0]
    talk = LoadingTalk(lambda event: None, clock=lambda: now[0])
    for at, stage in ((1.0, "checking"), (3.0, "checking"), (4.5, "loading"), (9.0, "loading")):
        now[0] = at
        talk(stage, 0, 1)
    assert talk.checking_s == pytest.approx(3.5)
