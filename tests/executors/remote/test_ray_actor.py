"""What an actor hears and says, without a cluster: Ray calls it in no order, and perhaps twice."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from commands import wait_for

ray_node = pytest.importorskip("zbench.executors.remote.ray_node", reason="zbench[ray] is not installed")


def actor_that_hears(heard: list[bytes]) -> Any:
    """One whose node only writes down what it hears."""
    actor = object.__new__(ray_node.NodeActor)
    actor._has_news, actor._said, actor._dropped = threading.Condition(), deque(), 0
    actor._hearing, actor._heard, actor._next = threading.Lock(), {}, 0
    actor._node = SimpleNamespace(hear=heard.append)
    return actor


def test_messages_are_heard_once_each_and_in_their_order() -> None:
    heard: list[bytes] = []
    actor = actor_that_hears(heard)
    for number in (1, 0, 1, 0, 3, 2, 3):
        actor.hear(number, b"%d" % number)
    assert heard == [b"0", b"1", b"2", b"3"] and not actor._heard


def test_what_is_said_reaches_every_call_that_waits_as_nobody_may_hear_the_first() -> None:
    actor = actor_that_hears([])
    with ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(actor.take, 0, 20.0) for _ in range(2)]
        wait_for(lambda: len(actor._has_news._waiters) == 2, 10)
        actor._say(b"hello")
        assert [call.result(timeout=10) for call in calls] == [[b"hello"]] * 2
