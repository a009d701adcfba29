"""Who looks out for the ranks says nothing of a call that all have ended, and goes on."""

import os
import time
from typing import Any, cast

from commands import wait_for

from zbench.engines import LostRank
from zbench.engines.reference.ranks.fellow import Fellow
from zbench.engines.reference.ranks.lookout import Lookout
from zbench.engines.reference.ranks.progress import Progress, Reached

HANG_S = 0.2


class Quiet:
    """Signs of life that nobody gives."""

    def read(self) -> list[Reached]:
        return [Reached(0, "step"), Reached(0, "step")]


class PromptFellow:
    """A follower that has answered; what its pipe says is another answer."""

    rank = 1

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.answer: dict[str, Any] | None = {"event": "started"}

    def read(self) -> bool:
        self.answer = {"event": "done"}
        return bool(os.read(self.read_fd, 1))


def test_a_call_that_all_have_ended_hangs_nowhere_and_the_next_one_is_looked_out_for() -> None:
    fellow, lost = PromptFellow(), list[LostRank]()
    lookout = Lookout([cast("Fellow", fellow)], cast("Progress", Quiet()), HANG_S, lost.append)
    lookout.begin()
    lookout._own_works = False  # as in `wait`, before it has seen the last answer
    time.sleep(1.5)  # several looks at a call in which nobody gave a sign of life
    lookout.end()
    assert lost == []
    fellow.answer = None
    os.write(fellow.write_fd, b"\0")
    wait_for(lambda: fellow.answer is not None, 5.0)
    lookout.close()
    os.close(fellow.read_fd)
    os.close(fellow.write_fd)
