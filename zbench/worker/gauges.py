"""Every gauge around a timed block, and their answers in the places a measurement has for them; it starts no round."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from zbench.hardware.nvml import Nvml, visible
from zbench.measurement import Energy, Memory, Telemetry
from zbench.probes.device import DeviceProbe
from zbench.probes.memory import MemoryProbe
from zbench.worker.cross_checks import memory_check


@dataclass(frozen=True)
class Readings:
    """What the gauges saw, named as the fields of `Measurement`."""

    memory: Memory
    energy: Energy | None
    telemetry: Telemetry = field(default_factory=Telemetry)
    validity: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


class Gauges:
    """Made once a process, before anything touches the GPU: what others hold there is not ours."""

    def __init__(self, nvml: Nvml | None = None, cuda: Any | None = None) -> None:
        """`cuda` is `torch.cuda` or a fake; by default torch is imported once an engine runs there."""
        self._cuda = cuda
        self._nvml = Nvml() if nvml is None else nvml
        self._devices = visible(self._nvml.devices())
        self._used_before = {device.index: self._nvml.used_bytes(device.index) for device in self._devices}
        self._memory = MemoryProbe()
        self._device: DeviceProbe | None = None
        self._why_no_device = "no_gpu"
        self._context_bytes: int | None = None
        self._round_began_s = 0.0

    def start(self, device: str, context_bytes: int | None = None) -> None:
        """Begin a block on `device`, as `Engine.effective` names it: cuda, or anything else for a host.

        `context_bytes` is what the process held there outside torch's allocator before it loaded anything.
        """
        cuda = (self._cuda or _torch_cuda()) if device.startswith("cuda") else None
        self._memory = MemoryProbe(cuda)
        self._device, self._why_no_device = None, "no_gpu" if cuda is None else "no_nvml"
        if cuda is not None and self._devices:
            index = self._devices[0].index
            used_before_bytes = self._used_before[index]
            self._context_bytes = context_bytes
            self._device = DeviceProbe(self._nvml, index=index, used_before_bytes=used_before_bytes)
            self._device.start()
        self._memory.start()

    def begin_round(self) -> None:
        """A round of the block is about to start."""
        self._round_began_s = time.perf_counter()

    def end_round(self) -> list[str]:
        """Why the round does not count, as `Round.invalid_reasons` names it; none without a device to ask."""
        if self._device is None:
            return []
        return self._device.reasons_between(self._round_began_s, time.perf_counter())

    def stop(self, rounds: int) -> Readings:
        """End the block, in which `rounds` generations ran."""
        peaks, reasons = self._memory.stop()
        if self._device is None:
            missing = ("memory.peak_device_bytes", "energy", "telemetry.memory_check")
            reasons |= dict.fromkeys(missing, self._why_no_device)
            return Readings(Memory(**peaks), None, reasons=reasons)
        seen = self._device.stop(rounds)
        reasons |= {_PLACES.get(key, f"telemetry.{key}"): reason for key, reason in seen.reasons.items()}
        memory = Memory(**peaks, peak_device_bytes=seen.peak_process_bytes)
        check = memory_check(
            memory.peak_reserved_bytes, seen.peak_process_bytes, self._context_bytes, seen.telemetry.memory_method
        )
        if check.reason is not None:
            reasons["telemetry.memory_check"] = check.reason
        telemetry = replace(seen.telemetry, memory_check=check.telemetry)
        doubts = seen.suspicions() + ([check.doubt] if check.doubt else [])
        return Readings(memory, seen.energy, telemetry, doubts, reasons)


_PLACES = {"peak_process_bytes": "memory.peak_device_bytes", "energy": "energy"}
"""Figures of a device probe that have places of their own; all others are telemetry."""


def _torch_cuda() -> Any:
    import torch

    return torch.cuda
