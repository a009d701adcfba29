"""What becomes of one actor's calls, on a Ray whose answers the test gives."""

from types import SimpleNamespace
from typing import Any

import pytest

from zbench.config.ray import RayExecutorConfig
from zbench.executors.remote import Heard, Lost
from zbench.executors.remote.ray import RayTransport

pytest.importorskip("ray", reason="zbench[ray] is not installed")


class FakeRayError(Exception):
    pass


class FakeRay:
    """One actor. A call is a name, which `answers` once the test says so."""

    exceptions = SimpleNamespace(
        RayError=FakeRayError,
        RaySystemError=type("RaySystemError", (FakeRayError,), {}),
        ActorUnavailableError=type("ActorUnavailableError", (FakeRayError,), {}),
    )

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.there: list[dict[str, Any]] = []
        self.killed = 0

    def remote(self, _: type) -> Any:
        actor = SimpleNamespace(
            take=SimpleNamespace(remote=lambda received, _: f"take {received}"),
            hear=SimpleNamespace(
                options=lambda **_: SimpleNamespace(remote=lambda number, _: f"hear {number}"),
            ),
        )
        return SimpleNamespace(options=lambda **given: SimpleNamespace(remote=lambda *_: self._placed(given, actor)))

    def _placed(self, given: dict[str, Any], actor: Any) -> Any:
        self.options = given
        return actor

    def wait(self, calls: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        ready = [call for call in calls if call in self.answers][:num_returns]
        return ready, [call for call in calls if call not in ready]

    def get(self, call: str) -> Any:
        answer = self.answers.pop(call)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def nodes(self) -> list[dict[str, Any]]:
        return self.there

    def kill(self, _: Any) -> None:
        self.killed += 1


def transport_over(ray: FakeRay) -> RayTransport:
    cluster: Any = SimpleNamespace(ray=ray, unfit=())
    return RayTransport(cluster, RayExecutorConfig(name="ray", target="x:Y"))


def test_a_message_that_does_not_arrive_loses_the_worker_which_would_wait_for_it_for_ever() -> None:
    ray = FakeRay()
    transport = transport_over(ray)
    transport.start("w", 1, b"begin", ())
    for message in (b"one", b"two"):
        transport.send("w", message)
    ray.answers["hear 0"] = None
    assert transport.poll(0.0) == []
    ray.answers["hear 1"] = FakeRayError("The actor died\n  of memory")
    assert transport.poll(0.0) == [Lost("w", "of memory")]
    assert transport.poll(0.0) == []


def test_what_a_worker_says_comes_while_messages_are_on_their_way_to_it() -> None:
    ray = FakeRay()
    transport = transport_over(ray)
    transport.start("w", 1, b"begin", ())
    transport.send("w", b"one")
    ray.answers["take 0"] = [b"hello", b"event"]
    assert transport.poll(0.0) == [Heard("w", b"hello"), Heard("w", b"event")]
    ray.answers |= {"take 2": [b"done"], "hear 0": None}
    assert transport.poll(0.0) == [Heard("w", b"done")]
