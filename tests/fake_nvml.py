"""A stand-in for the `pynvml` module: devices whose every answer a test sets, and calls it can take away."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

GIB = 2**30


class NVMLError(Exception):
    """What the library raises for anything it cannot answer."""


@dataclass
class FakeGpu:
    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-aaaa"
    total: int = 80 * GIB
    used: int = 1 * GIB
    compute: dict[int, int | None] = field(default_factory=dict)
    graphics: dict[int, int | None] = field(default_factory=dict)
    energy_mj: int = 5_000
    power_mw: int = 300_000
    sm_mhz: int = 1_700
    memory_mhz: int = 2_600
    temperature: int = 55
    throttle: int = 0


class FakeNvml:
    """`without` names calls that this library or driver lacks; `unsupported` those that raise."""

    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    nvmlClocksEventReasonGpuIdle = 0x1
    nvmlClocksEventReasonSwPowerCap = 0x4
    nvmlClocksEventReasonHwSlowdown = 0x8
    nvmlClocksEventReasonSwThermalSlowdown = 0x20
    nvmlClocksEventReasonHwThermalSlowdown = 0x40
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80
    nvmlClocksThrottleReasonSwPowerCap = 0x4

    def __init__(self, *gpus: FakeGpu, without: tuple[str, ...] = (), unsupported: tuple[str, ...] = ()) -> None:
        self.gpus = gpus
        self.calls = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: gpus[index],
            "nvmlSystemGetDriverVersion": lambda: "580.95",
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
            "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(
                total=gpu.total, used=gpu.used, free=gpu.total - gpu.used
            ),
            "nvmlDeviceGetComputeRunningProcesses": lambda gpu: _processes(gpu.compute),
            "nvmlDeviceGetGraphicsRunningProcesses": lambda gpu: _processes(gpu.graphics),
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: gpu.energy_mj,
            "nvmlDeviceGetPowerUsage": lambda gpu: gpu.power_mw,
            "nvmlDeviceGetClockInfo": lambda gpu, kind: gpu.sm_mhz if kind == 1 else gpu.memory_mhz,
            "nvmlDeviceGetTemperature": lambda gpu, sensor: gpu.temperature,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: gpu.throttle,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: gpu.throttle,
        }
        for name in without:
            del self.calls[name]
        for name in unsupported:
            self.calls[name] = _not_supported

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["calls"][name]
        except KeyError:
            raise AttributeError(name) from None


def _processes(table: dict[int, int | None]) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in table.items()]


def _not_supported(*arguments: object) -> None:
    raise NVMLError("Not Supported")
