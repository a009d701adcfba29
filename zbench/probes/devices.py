"""Every GPU of a trial, watched by a probe each, and what they saw as one reading. With one GPU it is that probe's.

A figure of several devices is one that nobody could call too good: memory of the fullest, clocks of the slowest, heat
and throttling of the worst, energy, power and PCIe traffic of all. A sum that one device cannot say its part of is
None, and so is the processes' memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from zbench.measurement import Energy, Telemetry
from zbench.probes.device import DeviceProbe, DeviceReadings

N = TypeVar("N", int, float)


class DeviceProbes:
    """Start, stop and judge as `DeviceProbe`, over all of them."""

    def __init__(self, probes: Sequence[DeviceProbe]) -> None:
        """At least one."""
        self._probes = tuple(probes)

    def start(self) -> None:
        """Begin a block on every device."""
        for probe in self._probes:
            probe.start()

    def stop(self, rounds: int) -> DeviceReadings:
        """End the block, in which `rounds` generations ran."""
        return combined([probe.stop(rounds) for probe in self._probes])

    def begin_turn(self) -> None:
        """The devices work for one of those that share the block."""
        for probe in self._probes:
            probe.begin_turn()

    def end_turn(self, owner: str) -> None:
        """That was `owner`'s turn."""
        for probe in self._probes:
            probe.end_turn(owner)

    def of_turns(self, owner: str, rounds: int) -> DeviceReadings:
        """What was seen in the turns of `owner` alone; to be asked after `stop`."""
        return combined([probe.of_turns(owner, rounds) for probe in self._probes])

    def reasons_between(self, began_s: float, ended_s: float) -> list[str]:
        """Why a round does not count: whatever speaks against it on any device, once."""
        found = (reason for probe in self._probes for reason in probe.reasons_between(began_s, ended_s))
        return list(dict.fromkeys(found))

    def sm_clock_mhz_between(self, began_s: float, ended_s: float) -> float | None:
        """Mean clock of the slowest device; None where none says it."""
        seen = [probe.sm_clock_mhz_between(began_s, ended_s) for probe in self._probes]
        return min((clock for clock in seen if clock is not None), default=None)


def combined(readings: Sequence[DeviceReadings]) -> DeviceReadings:
    """One block on several devices as one reading; a reason stays where the figure is None on the whole."""
    if len(readings) == 1:
        return readings[0]
    peaks = [each.peak_process_bytes for each in readings]
    peak = None if None in peaks else _largest(peaks)
    fullest = readings[peaks.index(peak)].telemetry if peak is not None else Telemetry()
    telemetry = _telemetry([each.telemetry for each in readings], fullest.memory_method)
    energy = _energy([each.energy for each in readings])
    missing = {
        "peak_process_bytes": peak is None,
        "energy": energy is None,
        **{name: getattr(telemetry, name) is None for name in Telemetry.__dataclass_fields__},
    }
    reasons = {key: why for each in reversed(readings) for key, why in each.reasons.items() if missing.get(key, True)}
    return DeviceReadings(telemetry, peak, energy, reasons)


def _telemetry(seen: Sequence[Telemetry], memory_method: str | None) -> Telemetry:
    def of(name: str, combine: Callable[[list[N | None]], N | None]) -> N | None:
        return combine([getattr(each, name) for each in seen])

    slowest = min((each for each in seen if each.sm_clock_mhz_mean is not None), key=_sm_clock, default=seen[0])
    told = [each.throttled for each in seen if each.throttled is not None]
    others = [each.other_compute_pids for each in seen]
    found = sorted({pid for pids in others if pids is not None for pid in pids})
    methods = {each.pcie_method for each in seen}
    weakest = next(method for method in (None, "sampled", "counter") if method in methods)
    return replace(
        Telemetry(),
        samples=of("samples", lambda counts: min((n for n in counts if n is not None), default=None)),
        memory_method=memory_method,
        peak_used_bytes=of("peak_used_bytes", _largest),
        sm_clock_mhz_mean=slowest.sm_clock_mhz_mean,
        sm_clock_mhz_max=slowest.sm_clock_mhz_max,
        memory_clock_mhz_mean=slowest.memory_clock_mhz_mean,
        memory_clock_mhz_max=slowest.memory_clock_mhz_max,
        temperature_c_max=of("temperature_c_max", _largest),
        power_w_mean=of("power_w_mean", _sum),
        throttled={k: max(t.get(k, 0.0) for t in told) for k in {k for t in told for k in t}} if told else None,
        other_compute_pids=None if not found and None in others else found,
        pcie_rx_bytes=of("pcie_rx_bytes", _sum),
        pcie_tx_bytes=of("pcie_tx_bytes", _sum),
        pcie_method=weakest,
    )


def _energy(each: Sequence[Energy | None]) -> Energy | None:
    """Of all devices; one that was integrated makes the sum so."""
    known = [energy for energy in each if energy is not None]
    if len(known) < len(each):
        return None
    methods = {energy.method for energy in known}
    method = known[0].method if len(methods) == 1 else "integrated power"
    return Energy(sum(energy.joules for energy in known), known[0].requests, method)


def _sm_clock(telemetry: Telemetry) -> float:
    return telemetry.sm_clock_mhz_mean or 0.0


def _largest(figures: Sequence[N | None]) -> N | None:
    return max((figure for figure in figures if figure is not None), default=None)


def _sum(figures: Sequence[N | None]) -> N | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if len(known) == len(figures) else None
