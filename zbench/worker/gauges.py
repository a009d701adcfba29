"""Every gauge around a timed block, and their answers in the places a measurement has for them; it starts no round."""

from dataclasses import dataclass, field
from typing import Any

from zbench.hardware.nvml import Nvml, visible
from zbench.measurement import Energy, Memory
from zbench.probes.device import DeviceProbe
from zbench.probes.memory import MemoryProbe


@dataclass(frozen=True)
class Readings:
    """What the gauges saw, named as the fields of `Measurement`."""

    memory: Memory
    energy: Energy | None
    telemetry: dict[str, Any] = field(default_factory=dict)
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

    def start(self, device: str) -> None:
        """Begin a block on `device`, as `Engine.effective` names it: cuda, or anything else for a host."""
        cuda = (self._cuda or _torch_cuda()) if device.startswith("cuda") else None
        self._memory = MemoryProbe(cuda)
        self._device, self._why_no_device = None, "no_gpu" if cuda is None else "no_nvml"
        if cuda is not None and self._devices:
            index = self._devices[0].index
            self._device = DeviceProbe(self._nvml, index=index, used_before_bytes=self._used_before[index])
            self._device.start()
        self._memory.start()

    def stop(self, rounds: int) -> Readings:
        """End the block, in which `rounds` generations ran."""
        peaks, reasons = self._memory.stop()
        if self._device is None:
            reasons |= dict.fromkeys(("memory.peak_device_bytes", "energy"), self._why_no_device)
            return Readings(Memory(**peaks), None, {}, [], reasons)
        seen = self._device.stop(rounds)
        places = {"peak_process_bytes": "memory.peak_device_bytes"}
        reasons |= {places.get(key, key): reason for key, reason in seen.reasons.items()}
        memory = Memory(**peaks, peak_device_bytes=seen.peak_process_bytes)
        return Readings(memory, seen.energy, seen.summary(), seen.suspicions(), reasons)


def _torch_cuda() -> Any:
    import torch

    return torch.cuda
