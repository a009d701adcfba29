"""A follower collects garbage after each call, and what calls left for good stays out of the next collections."""

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import trial

from zbench.engines import Generation
from zbench.engines.reference.ranks.follower import Follower

CALL = {"command": "generate", "call": ["a cat", 0, ""]}
IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
MADE = Generation(image=IMAGE, latents=None, latency_s=1.0, stages_s={}, steps_s=[1.0])


class CompilingMember:
    """Compiles in the calls that `compiles_in` counts, from 1."""

    device, span_s = "cpu", (0.0, 1.0)
    compiles_in = (1, 4)

    def __init__(self) -> None:
        self.calls = 0

    def configure(self, of: Any) -> None:
        pass

    def generate(self, *call: Any) -> Generation:
        self.calls += 1
        return replace(MADE, compiled=self.calls in self.compiles_in)


def test_the_heap_is_frozen_after_each_configuration_and_compilation_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("collect", "freeze", "unfreeze"):
        monkeypatch.setattr(gc, name, lambda name=name: done.append(name))
    member: Any = CompilingMember()
    follower = Follower(lambda world, beat: member)
    follower._member = member
    configure = {"command": "configure", "trial": trial().to_dict()}
    answers = [follower.answer(command) for command in (configure, CALL, CALL, CALL, CALL, CALL, configure, CALL, CALL)]
    assert all(answer["event"] == "done" for answer in answers), answers
    once, quiet = ["collect", "freeze"], ["collect"]
    assert done == ["unfreeze", *once, *quiet, *quiet, *once, *quiet, "unfreeze", *once, *quiet]
