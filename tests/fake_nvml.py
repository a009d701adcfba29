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
    power_limit_mw: int = 700_000
    sm_mhz: int = 1_700
    memory_mhz: int = 2_600
    temperature: int = 55
    throttle: int = 0
    reserved: int = 0  # by the driver
    utilisation: dict[int, int] | None = None  # share of the multiprocessors by PID, in percent; None: not supported
    pcie_counters: tuple[int, int] = (0, 0)  # bytes received and transmitted
    pcie_kb_per_s: tuple[int, int] = (0, 0)


class FakeNvml:
    """`without` names calls that this library or driver lacks; `unsupported` those that raise."""

    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    NVML_SUCCESS = 0
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_VALUE_TYPE_DOUBLE = 0
    NVML_VALUE_TYPE_UNSIGNED_INT = 1
    NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3
    NVML_FI_DEV_PCIE_COUNT_TX_BYTES = 197
    NVML_FI_DEV_PCIE_COUNT_RX_BYTES = 198
    NVML_PCIE_UTIL_TX_BYTES = 0
    NVML_PCIE_UTIL_RX_BYTES = 1
    nvmlMemory_v2 = 0x02000028
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
            "nvmlDeviceGetMemoryInfo": _memory_info,
            "nvmlDeviceGetComputeRunningProcesses": lambda gpu: _processes(gpu.compute),
            "nvmlDeviceGetGraphicsRunningProcesses": lambda gpu: _processes(gpu.graphics),
            "nvmlDeviceGetProcessUtilization": lambda gpu, since_us: [
                SimpleNamespace(pid=pid, smUtil=share) for pid, share in gpu.utilisation.items()
            ],
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: gpu.energy_mj,
            "nvmlDeviceGetPowerUsage": lambda gpu: gpu.power_mw,
            "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: gpu.power_limit_mw,
            "nvmlDeviceGetClockInfo": lambda gpu, kind: gpu.sm_mhz if kind == 1 else gpu.memory_mhz,
            "nvmlDeviceGetTemperature": lambda gpu, sensor: gpu.temperature,
            "nvmlDeviceGetFieldValues": lambda gpu, ids: [_field(gpu, field_id) for field_id in ids],
            "nvmlDeviceGetPcieThroughput": lambda gpu, way: gpu.pcie_kb_per_s[1 - way],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: gpu.throttle,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: gpu.throttle,
        }
        if any(gpu.utilisation is None for gpu in gpus):
            del self.calls["nvmlDeviceGetProcessUtilization"]
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


def _memory_info(gpu: FakeGpu, version: int | None = None) -> SimpleNamespace:
    used = gpu.used if version else gpu.used + gpu.reserved  # the first version counts what the driver holds as used
    return SimpleNamespace(total=gpu.total, used=used, free=gpu.total - gpu.used - gpu.reserved)


def _field(gpu: FakeGpu, field_id: int) -> SimpleNamespace:
    """As NVML: the member of the union that the type names, and other bits in the others."""
    count = gpu.pcie_counters[0 if field_id == FakeNvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES else 1]
    value = SimpleNamespace(dVal=-1.0, uiVal=count % 2**32, ulVal=-1, ullVal=count)
    return SimpleNamespace(nvmlReturn=0, valueType=FakeNvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, value=value)


def _not_supported(*arguments: object) -> None:
    raise NVMLError("Not Supported")
