"""What a request knows of a call that a server answered."""

from typing import Any

import numpy as np
import pytest

from zbench.engines import Generation
from zbench.worker.request import Turn, one_request
from zbench.workload import Pair


class Answered:
    """Stands for an engine: one call, as it is told."""

    def __init__(self, **told: Any) -> None:
        image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        self._made = Generation(image, None, stages_s={}, steps_s=[], **told)

    def generate(self, *call: Any) -> Generation:
        return self._made


def request(**told: Any) -> Any:
    made, _ = one_request(Answered(**told), Pair("p", "a cat", 0), Turn(0, "t"), 0.0)  # type: ignore[arg-type]
    return made


def test_a_server_tells_what_it_took_and_not_when_it_began() -> None:
    """Its clock may leave out what every request needs, so that nothing follows of when it began."""
    one = request(latency_s=2.0, served=True, server_s=0.5, server_peak_bytes=7)
    assert one.done_s - one.sent_s == pytest.approx(2.0)
    assert one.begun_s is None and one.server_s == 0.5 and one.server_peak_bytes == 7


def test_a_server_that_tells_nothing_has_no_beginning() -> None:
    one = request(latency_s=2.0, served=True)
    assert one.begun_s is None and one.server_s is None


def test_a_pipeline_of_this_process_begins_at_once() -> None:
    one = request(latency_s=2.0)
    assert one.begun_s == one.sent_s == one.due_s and one.server_s is None
