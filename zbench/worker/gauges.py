"""Every gauge around a timed block, and their answers in the places a measurement has for them; it starts no round."""

import time
from dataclasses import dataclass, field, replace

from zbench.hardware.nvml import Nvml
from zbench.measurement import Energy, Memory, MemoryCheck, Telemetry
from zbench.probes.device import DeviceProbe, DeviceReadings
from zbench.probes.devices import DeviceProbes
from zbench.probes.memory import MemoryProbe
from zbench.probes.watched import Watched
from zbench.worker.cross_checks import Check, memory_check


@dataclass(frozen=True)
class Readings:
    """What the gauges saw, named as the fields of `Measurement`."""

    memory: Memory
    energy: Energy | None
    telemetry: Telemetry = field(default_factory=Telemetry)
    validity: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


class Gauges:
    """Made once a process, before anything touches a GPU: what others hold there is not ours."""

    def __init__(self, nvml: Nvml | None = None) -> None:
        """`nvml` stands in for the driver's library in tests."""
        self._nvml = Nvml() if nvml is None else nvml
        indices = [device.index for device in self._nvml.devices()]
        self._used_before = {index: self._nvml.used_bytes(index) for index in indices}
        self._watched = Watched(())
        self._memory = MemoryProbe()
        self._devices: DeviceProbes | None = None
        self._round_began_s = 0.0
        self._own_peaks: dict[str, tuple[dict[str, int | None], dict[str, str]]] = {}  # of those that take turns

    def start(self, watched: Watched) -> None:
        """Begin a block on what the engine says it runs on. Where NVML does not know every device, it is not asked."""
        self._watched, self._memory, self._own_peaks = watched, MemoryProbe(watched), {}
        self._devices = None
        if watched.devices and self._used_before.keys() >= set(watched.devices):
            self._devices = DeviceProbes([self._probe(index) for index in watched.devices])
            self._devices.start()
        self._memory.start()

    def begin_round(self) -> None:
        """A round of the block is about to start."""
        self._round_began_s = time.perf_counter()

    def end_round(self) -> list[str]:
        """Why the round does not count, as `Request.invalid_reasons` names it; none without a device to ask."""
        return self.reasons_between(self._round_began_s, time.perf_counter())

    def reasons_between(self, began_s: float, ended_s: float) -> list[str]:
        """The same of a request between these times of `time.perf_counter`, where others ran beside it."""
        return [] if self._devices is None else self._devices.reasons_between(began_s, ended_s)

    def round_clock_mhz(self) -> float | None:
        """Mean GPU clock of the latest round, so far; None without a device, or a sample in it."""
        if self._devices is None:
            return None
        return self._devices.sm_clock_mhz_between(self._round_began_s, time.perf_counter())

    def begin_turn(self) -> None:
        """From now on requests are made for one of those that share the block: its peaks begin anew."""
        self._memory.start()
        if self._devices is not None:
            self._devices.begin_turn()

    def end_turn(self, owner: str) -> None:
        """That was `owner`'s turn."""
        if self._devices is not None:
            self._devices.end_turn(owner)
        peaks, reasons = self._memory.stop()
        former, said = self._own_peaks.get(owner, ({}, {}))
        known = {key: [size for size in (former.get(key), peak) if size is not None] for key, peak in peaks.items()}
        self._own_peaks[owner] = {key: max(sizes, default=None) for key, sizes in known.items()}, said | reasons

    def stop(self, rounds: int) -> Readings:
        """End the block, in which `rounds` generations ran."""
        return self._readings(*self._memory.stop(), None if self._devices is None else self._devices.stop(rounds))

    def of_turns(self, owner: str, rounds: int) -> Readings:
        """What was seen in the turns of `owner` alone, with `rounds` generations; to be asked after `stop`."""
        peaks, reasons = self._own_peaks.get(owner, ({}, {}))
        seen = None if self._devices is None else self._devices.of_turns(owner, rounds)
        return self._readings(peaks, dict(reasons), seen)

    def _readings(self, peaks: dict[str, int | None], reasons: dict[str, str], seen: DeviceReadings | None) -> Readings:
        if seen is None:
            on_device = self._watched.devices or self._watched.allocator is not None
            missing = ("memory.peak_device_bytes", "energy", "telemetry.memory_check")
            reasons |= dict.fromkeys(missing, "no_nvml" if on_device else self._watched.unseen or "no_gpu")
            return Readings(Memory(**peaks), None, reasons=reasons)
        reasons |= {_PLACES.get(key, f"telemetry.{key}"): reason for key, reason in seen.reasons.items()}
        memory = Memory(**peaks, peak_device_bytes=seen.peak_process_bytes)
        check = self._check(memory, seen)
        if check.reason is not None:
            reasons["telemetry.memory_check"] = check.reason
        telemetry = replace(seen.telemetry, memory_check=check.telemetry)
        doubts = seen.suspicions() + ([check.doubt] if check.doubt else [])
        return Readings(memory, seen.energy, telemetry, doubts, reasons)

    def _probe(self, index: int) -> DeviceProbe:
        used_before_bytes = self._used_before[index]
        return DeviceProbe(self._nvml, index=index, pids=self._watched.pids, used_before_bytes=used_before_bytes)

    def _check(self, memory: Memory, seen: DeviceReadings) -> Check[MemoryCheck]:
        """An allocator accounts for one process on one device, so NVML can be held to it there alone."""
        if len(self._watched.devices) > 1 or len(self._watched.pids) > 1:
            return Check(reason="several_devices" if len(self._watched.devices) > 1 else "several_processes")
        method = seen.telemetry.memory_method
        return memory_check(memory.peak_reserved_bytes, seen.peak_process_bytes, self._watched.context_bytes, method)


_PLACES = {"peak_process_bytes": "memory.peak_device_bytes", "energy": "energy"}
"""Figures of a device probe that have places of their own; all others are telemetry."""
