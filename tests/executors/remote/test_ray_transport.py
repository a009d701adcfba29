"""What becomes of one actor's calls, on a Ray whose answers the test gives."""

from types import SimpleNamespace
from typing import Any

import pytest

from zbench.config.ray import RayExecutorConfig
from zbench.executors.remote import Heard, Lost
from zbench.executors.remote.ray import LATE_S, RayTransport, could_have, given_to_ray

pytest.importorskip("ray", reason="zbench[ray] is not installed")


class FakeRayError(Exception):
    pass


class FakeRay:
    """Its actors are alike. A call is a name, which `answers` once the test says so."""

    exceptions = SimpleNamespace(
        RayError=FakeRayError,
        RaySystemError=type("RaySystemError", (FakeRayError,), {}),
        ActorUnavailableError=type("ActorUnavailableError", (FakeRayError,), {}),
    )

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.there: list[dict[str, Any]] = []
        self.now_s = 0.0

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


def node(node_id: str, gpus: int, *, cpus: int = 8, alive: bool = True, type_: str = "H100") -> dict[str, Any]:
    """An entry of `ray.nodes()`; a dead one has no resources."""
    has = {"CPU": cpus, **({"GPU": gpus, f"accelerator_type:{type_}": 1} if gpus else {})}
    return {"NodeID": node_id, "Alive": alive, "Resources": has if alive else {}}


def transport_over(ray: FakeRay, unfit: tuple[str, ...] = ("unfit",)) -> RayTransport:
    cluster: Any = SimpleNamespace(ray=ray, unfit=unfit)
    return RayTransport(cluster, RayExecutorConfig(name="ray", target="x:Y"), clock=lambda: ray.now_s)


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


def test_a_worker_that_no_node_could_have_is_lost_and_one_in_a_queue_is_not() -> None:
    ray = FakeRay()
    ray.there = [node("a", 4), node("b", 8, alive=False), node("unfit", 8)]
    transport = transport_over(ray)
    transport.start("fits", 4, b"begin", ())
    transport.start("too large", 8, b"begin", ())
    transport.start("is here", 8, b"begin", ())
    transport._placed["is here"].received = 1
    assert transport.poll(0.0) == []
    ray.now_s += LATE_S + 1
    why = "no node of the cluster could have a worker with 8 GPUs, executor.num_cpus=1"
    assert transport.poll(0.0) == [Lost("too large", why)]
    assert transport.poll(0.0) == [], "asked again after a while alone"


def test_a_worker_needs_gpus_cores_and_a_type_of_one_node() -> None:
    config = RayExecutorConfig(name="ray", target="x:Y", num_cpus=4, accelerator="H100")
    assert could_have(8, node("a", 8), config) and could_have(0, node("a", 8), config)
    assert not could_have(9, node("a", 8), config)
    assert not could_have(1, node("a", 8, cpus=2), config)
    assert not could_have(1, node("a", 8, type_="A100"), config)
    assert not could_have(0, node("a", 8, alive=False), config)


@pytest.mark.parametrize(("gpus", "left"), [(2, 2), (0, 0), (9, 3)])
def test_a_node_offers_the_gpus_that_ray_was_given_and_not_all_that_the_driver_shows(gpus: int, left: int) -> None:
    said = {"devices": list("abc"), "environments": ["cpu", "1", "2", "3"]}
    found = given_to_ray(said, node("a", gpus))
    assert found == {"devices": list("abc")[:left], "environments": ["cpu", "1", "2", "3"][: left + 1]}


@pytest.mark.parametrize(("devices", "strategy"), [(0, "SPREAD"), (1, "DEFAULT")])
def test_workers_without_a_gpu_are_spread_over_the_nodes(devices: int, strategy: str) -> None:
    ray = FakeRay()
    transport_over(ray, unfit=()).start("w", devices, b"begin", ())
    assert ray.options["scheduling_strategy"] == strategy and ray.options["num_gpus"] == devices
