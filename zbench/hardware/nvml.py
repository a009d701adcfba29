"""NVIDIA's management library, behind one wrapper: every question has an answer or None, never an exception.

It refuses to guess: a figure the driver does not give (no library, no driver, not supported, hidden by a
container) is None, and memory that is not this process's own figure is marked as such.
"""

import importlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

T = TypeVar("T")

THROTTLE_REASONS = {
    "sw_power_cap": "SwPowerCap",
    "hw_slowdown": "HwSlowdown",
    "sw_thermal": "SwThermalSlowdown",
    "hw_thermal": "HwThermalSlowdown",
    "hw_power_brake": "HwPowerBrakeSlowdown",
}
"""Reasons that slow a busy device; the others (idle, chosen clocks, display) do not make a measurement
suspect."""


FIELD_MEMBERS = {"UNSIGNED_INT": "uiVal", "UNSIGNED_LONG": "ulVal", "UNSIGNED_LONG_LONG": "ullVal"}
"""Types of counters to the member of NVML's union that holds them."""


@dataclass(frozen=True)
class Device:
    """One GPU. Satisfies `environment.DeviceLike`."""

    index: int
    """NVML's, which is PCI order; CUDA's may differ (`visible`)."""
    name: str
    uuid: str | None
    memory_bytes: int | None
    driver: str | None
    power_limit_w: float | None = None
    """In force, by whoever set it."""

    @property
    def place(self) -> str:
        """Under which name turns on it are taken (`hardware.turns`)."""
        return self.uuid or f"gpu-{self.index}"


@dataclass(frozen=True)
class ProcessMemory:
    """Device memory of a trial's processes."""

    bytes: int
    method: Literal["process", "device_difference"]
    """device_difference: the driver does not show these PIDs (containers hide them), so this is what the whole
    device uses more than before they touched it; other processes' changes are in it."""


@dataclass(frozen=True)
class PcieBytes:
    """Traffic of one device over PCIe, both ways as the device sees them: bytes so far, or bytes a second."""

    received: float
    transmitted: float


class Nvml:
    """A session with the library. With no library, driver or device it is a session without devices."""

    def __init__(self, library: Any = None) -> None:
        """`library` stands in for the `pynvml` module in tests."""
        self._handles: list[Any] = []
        self._lib = library if library is not None else _import_library()
        if self._lib is None:
            return
        if self._try(lambda: self._lib.nvmlInit() or True) is None:
            self._lib = None
            return
        count = self._ask("nvmlDeviceGetCount") or 0
        handles = (self._ask("nvmlDeviceGetHandleByIndex", index) for index in range(count))
        self._handles = [handle for handle in handles if handle is not None]

    def devices(self) -> list[Device]:
        """Every GPU the driver shows, in NVML's order."""
        driver = _text(self._ask("nvmlSystemGetDriverVersion"))
        return [
            Device(
                index=index,
                name=_text(self._ask("nvmlDeviceGetName", handle)) or "unknown NVIDIA GPU",
                uuid=_text(self._ask("nvmlDeviceGetUUID", handle)),
                memory_bytes=self._memory(index, "total"),
                driver=driver,
                power_limit_w=_scaled(self._ask("nvmlDeviceGetEnforcedPowerLimit", handle), 1e-3),
            )
            for index, handle in enumerate(self._handles)
        ]

    def used_bytes(self, index: int) -> int | None:
        """Memory in use on the whole device, by every process; as in nvidia-smi without what the driver reserves.

        Only the second version of NVML's answer leaves that out; where there is only the first, it is in it.
        """
        version = getattr(self._lib, "nvmlMemory_v2", None)
        info = self._ask("nvmlDeviceGetMemoryInfo", self._handle(index), version)
        return self._memory(index, "used") if info is None else int(info.used)

    def free_bytes(self, index: int) -> int | None:
        """Memory free on the device."""
        return self._memory(index, "free")

    def processes(self, index: int) -> dict[int, int | None]:
        """Device memory by PID, None where the driver does not say.

        A process can be in both the compute and the graphics list with one and the same figure: the larger
        counts.
        """
        found: dict[int, int | None] = {}
        for kind in ("Compute", "Graphics"):
            for process in self._ask(f"nvmlDeviceGet{kind}RunningProcesses", self._handle(index)) or ():
                figures = [f for f in (process.usedGpuMemory, found.get(process.pid)) if f is not None]
                found[process.pid] = max(figures, default=None)
        return found

    def compute_pids(self, index: int) -> set[int]:
        """Processes that compute on the device."""
        return {p.pid for p in self._ask("nvmlDeviceGetComputeRunningProcesses", self._handle(index)) or ()}

    def busy_pids(self, index: int, since_us: int) -> set[int] | None:
        """Processes whose kernels ran on the device since then (microseconds since the epoch); None where the driver
        does not say."""
        samples = self._ask("nvmlDeviceGetProcessUtilization", self._handle(index), since_us)
        return None if samples is None else {sample.pid for sample in samples if sample.smUtil > 0}

    def process_memory(
        self, index: int, pids: Collection[int], used_before_bytes: int | None = None
    ) -> ProcessMemory | None:
        """Memory of these processes on the device, summed; those that hold none there count for nothing.

        `used_before_bytes` is `used_bytes` from before they touched the device; without it processes that the driver
        hides have no figure.
        """
        listed = self.processes(index)
        figures = [listed[pid] for pid in pids if pid in listed]
        if figures and None not in figures:
            return ProcessMemory(sum(figure for figure in figures if figure is not None), "process")
        used = self.used_bytes(index)
        if used is None or used_before_bytes is None:
            return None
        return ProcessMemory(max(0, used - used_before_bytes), "device_difference")

    def energy_j(self, index: int) -> float | None:
        """Counter of energy since the driver was loaded, joules."""
        return _scaled(self._ask("nvmlDeviceGetTotalEnergyConsumption", self._handle(index)), 1e-3)

    def power_w(self, index: int) -> float | None:
        """Power drawn now, watts."""
        return _scaled(self._ask("nvmlDeviceGetPowerUsage", self._handle(index)), 1e-3)

    def pcie_counters(self, index: int) -> PcieBytes | None:
        """Counters of bytes; only their differences mean something, and they begin anew once they are full."""
        names = ("NVML_FI_DEV_PCIE_COUNT_RX_BYTES", "NVML_FI_DEV_PCIE_COUNT_TX_BYTES")
        fields = [getattr(self._lib, name, None) for name in names]
        if None in fields:
            return None
        answers = self._ask("nvmlDeviceGetFieldValues", self._handle(index), fields)
        values = [self._try(partial(self._field_value, answer)) for answer in answers or ()]
        if len(values) != 2 or values[0] is None or values[1] is None:
            return None
        return PcieBytes(values[0], values[1])

    def pcie_bytes_per_s(self, index: int) -> PcieBytes | None:
        """What the driver sees pass now; it looks for 20 ms each way, in which this call waits."""
        handle = self._handle(index)
        kinds = (getattr(self._lib, f"NVML_PCIE_UTIL_{way}_BYTES", None) for way in ("RX", "TX"))
        received, transmitted = (
            _scaled(self._ask("nvmlDeviceGetPcieThroughput", handle, kind), 1e3)  # it says KB/s
            for kind in kinds
        )
        return None if received is None or transmitted is None else PcieBytes(received, transmitted)

    def sm_clock_mhz(self, index: int) -> float | None:
        """Clock of the multiprocessors now."""
        return self._clock(index, "NVML_CLOCK_SM")

    def memory_clock_mhz(self, index: int) -> float | None:
        """Clock of the memory now."""
        return self._clock(index, "NVML_CLOCK_MEM")

    def temperature_c(self, index: int) -> float | None:
        """Temperature of the GPU now, °C."""
        sensor = getattr(self._lib, "NVML_TEMPERATURE_GPU", 0)
        return _scaled(self._ask("nvmlDeviceGetTemperature", self._handle(index), sensor), 1.0)

    def throttle_reasons(self, index: int) -> list[str] | None:
        """Which of THROTTLE_REASONS slow the device now; None where the driver does not say.

        Newer drivers call them event reasons, older ones throttle reasons; the bits are the same.
        """
        handle = self._handle(index)
        for word in ("Event", "Throttle"):
            mask = self._ask(f"nvmlDeviceGetCurrentClocks{word}Reasons", handle)
            if mask is not None:
                prefix = f"nvmlClocks{word}Reason"
                return [k for k, v in THROTTLE_REASONS.items() if mask & getattr(self._lib, prefix + v, 0)]
        return None

    def close(self) -> None:
        """End the session; further questions are answered None."""
        self._ask("nvmlShutdown")
        self._lib, self._handles = None, []

    def _handle(self, index: int) -> Any:
        return self._handles[index] if 0 <= index < len(self._handles) else None

    def _memory(self, index: int, field: str) -> int | None:
        info = self._ask("nvmlDeviceGetMemoryInfo", self._handle(index))
        return None if info is None else int(getattr(info, field))

    def _clock(self, index: int, kind: str) -> float | None:
        code = getattr(self._lib, kind, None)
        if code is None:
            return None
        return _scaled(self._ask("nvmlDeviceGetClockInfo", self._handle(index), code), 1.0)

    def _field_value(self, answer: Any) -> int | None:
        """A whole number out of NVML's union of types; None where this one field has none."""
        if answer.nvmlReturn != getattr(self._lib, "NVML_SUCCESS", 0):
            return None
        for kind, member in FIELD_MEMBERS.items():
            if answer.valueType == getattr(self._lib, f"NVML_VALUE_TYPE_{kind}", None):
                return int(getattr(answer.value, member))
        return None

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Result of a library call; None where the call is missing, not supported, fails, or has no
        device."""
        call = getattr(self._lib, function, None)
        if call is None or any(argument is None for argument in arguments):
            return None
        return self._try(lambda: call(*arguments))

    def _try(self, call: Callable[[], T]) -> T | None:
        """Every failure is an absence: NVMLError, and what a broken or foreign driver library makes ctypes
        raise."""
        try:
            return call()
        except Exception:
            return None


def visible(devices: list[Device], variables: Mapping[str, str] | None = None) -> list[Device]:
    """The devices CUDA may use, in CUDA's order: what CUDA_VISIBLE_DEVICES (indices or UUID prefixes) leaves.

    Assumes CUDA's order to be NVML's, which holds where all GPUs are alike or CUDA_DEVICE_ORDER=PCI_BUS_ID.
    As in CUDA, the first entry that names no device ends the list.
    """
    listed = (os.environ if variables is None else variables).get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return devices
    chosen = []
    for entry in (part.strip() for part in listed.split(",")):
        found = [d for d in devices if entry and (entry == str(d.index) or (d.uuid or "").startswith(entry))]
        if len(found) != 1:
            break
        chosen += found
    return chosen


def _import_library() -> Any:
    try:
        return importlib.import_module("pynvml")
    except Exception:  # a broken installation can raise anything on import
        return None


def _text(value: Any) -> str | None:
    """Older versions of the library answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _scaled(value: Any, factor: float) -> float | None:
    return None if value is None else float(value) * factor
