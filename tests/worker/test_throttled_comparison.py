"""A comparison's round on a GPU that is throttled does not count; NVML and the engine are stand-ins."""

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest
from factories import trial
from fake_allocator import on_gpu
from fake_nvml import GIB, FakeGpu, FakeNvml
from scripted import ScriptedEngine

from zbench.hardware.nvml import Nvml
from zbench.probes.watched import Watched
from zbench.worker.__main__ import Pipes, Worker, _Side
from zbench.worker.gauges import Gauges


class OnGpu(ScriptedEngine):
    """Runs on the fake device."""

    def watch(self) -> Watched:
        return on_gpu()


FRIEND, STRANGER = 1, 2


@pytest.mark.parametrize(
    ("throttle", "computing", "reasons"),
    [
        (0x0, FRIEND, []),
        (0x40, FRIEND, ["throttled:hw_thermal"]),
        (0x4, FRIEND, []),
        (0x0, STRANGER, ["foreign_process"]),
    ],
)
def test_a_round_of_a_comparison_says_what_its_gpu_has_against_it(
    throttle: int, computing: int, reasons: list[str]
) -> None:
    """But for its own power limit, as in a sweep. The other side's worker is no neighbour to be blamed."""
    worker = Worker(cast(Pipes, SimpleNamespace()), allow_code=False)
    gpu = FakeGpu(throttle=throttle, compute={os.getpid(): GIB, computing: GIB})
    worker._gauges = Gauges(Nvml(FakeNvml(gpu)))
    worker._engine = cast(Any, OnGpu())
    worker._sides, worker._configured = {"a": _Side(trial(), "baseline", "same")}, "same"
    try:
        for _ in range(2):
            said = worker._generate({"side": "a", "index": 0, "beside": [FRIEND]})
            made = said["request"]
            assert made["invalid_reasons"] == reasons and made["valid"] == (not reasons)
            assert said["sm_clock_mhz"] is None or said["sm_clock_mhz"] > 0
        of_older = worker._generate({"side": "a", "index": 0})["request"]
        assert of_older["invalid_reasons"] == [r for r in reasons if r != "foreign_process"]
    finally:
        worker._engine = None
        worker._unload()
