"""Whose a connection to Ray is, and with what it was made; a stand-in for ray writes down what it is told."""

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from zbench.config.ray import RayExecutorConfig
from zbench.executors.remote.ray import ALONE, RayCluster


class RayModule(SimpleNamespace):
    def __init__(self, at: str | None = None) -> None:
        super().__init__(at=at, told=[], shut=0)

    def is_initialized(self) -> bool:
        return self.at is not None

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address=self.at)

    def init(self, **told: Any) -> None:
        assert self.at is None, "called twice"
        self.at = "10.0.0.1:6379"
        self.told.append(told)

    def shutdown(self) -> None:
        self.at = None
        self.shut += 1


def asked(address: str = "auto", **options: object) -> RayExecutorConfig:
    return RayExecutorConfig(name="ray", target="x:Y", address=address, options=options)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> RayModule:
    found = RayModule()
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.setattr(RayCluster, "_open", None)
    return found


def test_one_connection_serves_all_who_ask_alike_and_another_takes_its_place(ray: RayModule) -> None:
    first = RayCluster.of(asked())
    assert RayCluster.of(asked()) is first and len(ray.told) == 1
    other = RayCluster.of(asked(runtime_env={"working_dir": "."}))
    assert ray.shut == 1 and ray.told[1]["runtime_env"] == {"working_dir": "."}
    other.close()
    assert ray.shut == 2 and RayCluster._open is None


def test_a_connection_of_somebody_else_is_used_and_left_open(
    ray: RayModule, capsys: pytest.CaptureFixture[str]
) -> None:
    ray.at = "10.0.0.1:6379"
    RayCluster.of(asked()).close()
    RayCluster.of(asked("10.0.0.1:6379")).close()
    assert not ray.told and not ray.shut and not capsys.readouterr().err


def test_keys_that_it_does_not_heed_are_named(ray: RayModule, capsys: pytest.CaptureFixture[str]) -> None:
    ray.at = "10.0.0.1:6379"
    RayCluster.of(asked("local", runtime_env={"working_dir": "."})).close()
    said = capsys.readouterr().err
    assert "was connected to Ray at 10.0.0.1:6379 before" in said
    assert "not heeded: executor.address and executor.options.runtime_env\n" in said


def test_a_cluster_of_this_machine_alone_has_no_dashboard_and_another_is_taken_as_it_is(
    ray: RayModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ALONE:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    RayCluster.of(asked()).close()
    assert "include_dashboard" not in ray.told[0] and not os.environ.keys() & ALONE
    RayCluster.of(asked("local")).close()
    assert ray.told[1]["include_dashboard"] is False and os.environ.items() >= ALONE.items()
