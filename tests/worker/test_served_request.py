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


def test_what_a_server_tells_of_its_own_time_says_when_it_began() -> None:
    one = request(latency_s=2.0, served=True, server_s=0.5, server_peak_bytes=7)
    assert one.done_s - one.sent_s == pytest.approx(2.0) and one.done_s - one.begun_s == pytest.approx(0.5)
    assert one.queue_s == pytest.approx(1.5) and one.server_s == 0.5 and one.server_peak_bytes == 7


def test_a_server_that_tells_nothing_has_no_beginning() -> None:
    one = request(latency_s=2.0, served=True)
    assert one.begun_s is None and one.queue_s is None and one.server_s is None


def test_a_server_that_claims_more_time_than_passed_began_when_it_was_asked() -> None:
    one = request(latency_s=2.0, served=True, server_s=3.0)
    assert one.begun_s == one.sent_s and one.server_s == 3.0


def test_a_pipeline_of_this_process_begins_at_once() -> None:
    one = request(latency_s=2.0)
    assert one.begun_s == one.sent_s == one.due_s and one.server_s is None
