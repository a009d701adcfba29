"""How the workers of a launch start: both import at once, and load one after another in the order that was drawn."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from commands import TESTS
from factories import trial

from zbench.ab import launch
from zbench.ab.launch import Launcher
from zbench.ab.side import Side, SideFailed, SideWorker
from zbench.config import EngineConfig, MeasureConfig


class Told:
    """Stands in for a worker, and writes down what it is asked for; `fails` says at what."""

    said: ClassVar[list[str]] = []
    fails: ClassVar[set[str]] = set()

    def __init__(self, sides: list[Side], log: Path, timeout_s: float) -> None:
        self._name = sides[0].name
        self._do("start")

    def _do(self, what: str) -> None:
        self.said.append(f"{what} {self._name}")
        if self.said[-1] in self.fails:
            raise SideFailed(self._name, "it broke", broken=True)

    def start_importing(self) -> None:
        self._do("ask")

    def finish_importing(self) -> None:
        self._do("await")

    def prepare(self, began_s: float) -> None:
        self._do("load")


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Starts workers of both sides in an order, of which some `fails`; what they were asked for."""

    def start(order: str, *fails: str) -> list[str]:
        monkeypatch.setattr(launch, "SideWorker", Told)
        monkeypatch.setattr(Told, "said", [])
        monkeypatch.setattr(Told, "fails", set(fails))
        listener: Any = SimpleNamespace()
        launcher = Launcher([], {}, tmp_path, MeasureConfig(), listener, listener, lambda: False)
        workers: launch.Workers = {}
        try:
            launcher._start([[Side(name, trial())] for name in order], workers)  # type: ignore[arg-type]
        finally:
            assert list(workers) == list(order), "each is there to be closed"
        return Told.said

    return start


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_both_import_before_either_loads(order: str, started: Callable[..., list[str]]) -> None:
    assert started(order) == [f"{what} {name}" for what in ("start", "ask", "await", "load") for name in order]


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("when", ["ask", "await", "load"])
def test_what_b_fails_at_waits_for_a_which_may_fail_in_the_same_way(
    order: str, when: str, started: Callable[..., list[str]]
) -> None:
    for fails, side in (((f"{when} b",), "b"), ((f"{when} b", f"{when} a"), "a")):
        with pytest.raises(SideFailed) as failure:
            started(order, *fails)
        assert failure.value.side == side
    started_both = [said for said in Told.said if said.startswith("start")]
    assert started_both == [f"start {name}" for name in order]


def test_a_worker_of_an_older_zbench_is_not_asked_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS / "engines"))
    told: list[str] = []
    tell, hear = SideWorker._tell, SideWorker._await
    knows = True

    def keep(self: SideWorker, command: dict[str, Any]) -> None:
        told.append(command["command"])
        tell(self, command)

    def heard(self: SideWorker, wanted: str, *limits: Any) -> dict[str, Any]:
        said = hear(self, wanted, *limits)
        return said if knows else {key: value for key, value in said.items() if key != "imports"}

    monkeypatch.setattr(SideWorker, "_tell", keep)
    monkeypatch.setattr(SideWorker, "_await", heard)
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine")
    for knows, wanted in ((True, ["import", "prepare"]), (False, ["prepare"])):  # noqa: B007
        told.clear()
        worker = SideWorker([Side("a", trial(engine=engine))], tmp_path / "worker.log", timeout_s=60)
        try:
            worker.start_importing()
            worker.prepare(0.0)
            assert told == wanted and worker.generate("a", 0).valid
        finally:
            worker.close()
