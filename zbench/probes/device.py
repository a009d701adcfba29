"""One GPU watched from beside a timed block: memory, clocks, heat, throttling, energy, PCIe, who else computes there.

It samples from a thread that sleeps between samples and never synchronises the device. Without NVML it does
nothing and says `no_gpu` for every figure. It refuses to give energy for blocks under 10 s: the counter is
too coarse for them.
"""

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from zbench.hardware.nvml import Nvml, ProcessMemory
from zbench.measurement import OWN_LIMIT, Energy, Telemetry
from zbench.probes.integral import integral
from zbench.probes.neighbours import Neighbours
from zbench.probes.pcie import PcieMeter, PcieTraffic
from zbench.probes.turns import OwnTurns

ENERGY_BLOCK_S = 10.0
"""Shortest block whose energy is given."""

THROTTLED_SHARE = 0.1
"""Share of samples under a throttle reason from which a measurement is called suspect, and a round invalid."""

INTERVAL_S = 0.05
"""Between samples: PCIe's counters turn at 2^32 bytes, which takes 0.08 s at the full rate of generation 5, x16."""

FOREIGN = "foreign_process"
THROTTLED = "throttled:"
"""How the reason begins why a round does not count whose device was throttled."""


@dataclass(frozen=True)
class DeviceReadings:
    """What a probe saw over one block. None where the driver does not say, with the reason in `reasons`."""

    telemetry: Telemetry = field(default_factory=Telemetry)
    peak_process_bytes: int | None = None
    """Peak of the trial's processes together: `Memory.peak_device_bytes`."""
    energy: Energy | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    """Field to why it is None."""

    def suspicions(self) -> list[str]:
        """For `Measurement.validity`: why the block should not be trusted."""
        found = [
            f"the GPU was throttled ({reason}) in {share:.0%} of the samples"
            for reason, share in (self.telemetry.throttled or {}).items()
            if share >= THROTTLED_SHARE and reason != OWN_LIMIT
        ]
        if self.telemetry.other_compute_pids:
            pids = ", ".join(map(str, self.telemetry.other_compute_pids))
            found.append(f"other processes were computing on the GPU (PID {pids})")
        return found


@dataclass(frozen=True)
class _Sample:
    at_s: float
    memory: ProcessMemory | None
    used_bytes: int | None
    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    throttle_reasons: list[str] | None


class DeviceProbe:
    """Watches one device for a trial's processes; `start` and `stop` around a block, again for the next one."""

    def __init__(
        self,
        nvml: Nvml | None = None,
        *,
        index: int = 0,
        pids: Sequence[int] | None = None,
        used_before_bytes: int | None = None,
        interval_s: float = INTERVAL_S,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`index` is NVML's, `pids` are by default this process. `used_before_bytes` is what the device used before
        they touched it (`Nvml.used_bytes` at the start); processes that the driver hides have no figure without it."""
        self._nvml = Nvml() if nvml is None else nvml
        self._index, self._pids = index, (os.getpid(),) if pids is None else tuple(pids)
        self._used_before_bytes, self._interval_s, self._clock_s = used_before_bytes, interval_s, clock_s
        self._present = any(device.index == index for device in self._nvml.devices())
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._samples: list[_Sample] = []
        self._sampling = threading.Lock()
        self._neighbours = Neighbours(self._nvml, index, self._pids, clock_s)
        self._pcie = PcieMeter(self._nvml, index)
        self._energy_before_j: float | None = None
        self._started_s = 0.0
        self._turns = OwnTurns()

    def start(self) -> None:
        """Begin a block."""
        self._samples, self._turns = [], OwnTurns()
        if not self._present:
            return
        self._neighbours.start()
        self._pcie.start()
        self.sample()
        self._energy_before_j = self._nvml.energy_j(self._index)
        self._started_s = self._clock_s()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._watch, name="zbench-device-probe", daemon=True)
        self._thread.start()

    def stop(self, rounds: int) -> DeviceReadings:
        """End the block, in which `rounds` generations ran."""
        if not self._present:
            return DeviceReadings(reasons=dict.fromkeys(("peak_process_bytes", "energy", "telemetry"), "no_gpu"))
        duration_s = self._clock_s() - self._started_s
        energy_after_j = self._nvml.energy_j(self._index)
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.sample()
        self._neighbours.look()
        before_j = self._energy_before_j
        joules = None if energy_after_j is None or before_j is None else energy_after_j - before_j
        return self._telemetry(self._samples, self._pcie.traffic(), rounds, duration_s, joules)

    def begin_turn(self) -> None:
        """From now on the device works for one of those that share the block."""
        if self._present:
            self._turns.begin(*self._now())

    def end_turn(self, owner: str) -> None:
        """That was `owner`'s turn."""
        if self._present:
            self._turns.end(owner, *self._now())

    def of_turns(self, owner: str, rounds: int) -> DeviceReadings:
        """What it saw in the turns of `owner` alone, in which `rounds` generations ran; to be asked after `stop`."""
        if not self._present:
            return self.stop(rounds)
        mine = self._turns.of(owner)
        samples = [sample for sample in self._samples if mine.contains(sample.at_s)]
        return self._telemetry(samples, mine.pcie, rounds, mine.duration_s, mine.joules)

    def _now(self) -> tuple[float, float | None, PcieTraffic]:
        """The time, the energy counter and what passed over PCIe, where that is counted and not sampled."""
        with self._sampling:
            return self._clock_s(), self._nvml.energy_j(self._index), self._pcie.counted(self._clock_s())

    def reasons_between(self, began_s: float, ended_s: float) -> list[str]:
        """Why a round from `began_s` to `ended_s`, seconds of the probe's clock, does not count: none for a good one.

        `throttled:` and one of THROTTLE_REASONS but OWN_LIMIT, where THROTTLED_SHARE of the samples in the round show
        it, and `foreign_process`. A round so short that no sample fell into it gets one now; ask right after the round.
        """
        if not self._present:
            return []
        inside = [sample for sample in tuple(self._samples) if began_s <= sample.at_s <= ended_s]
        shares = _throttled(inside or [self.sample()])
        against = {reason: share for reason, share in (shares or {}).items() if reason != OWN_LIMIT}
        found = [f"{THROTTLED}{reason}" for reason, share in against.items() if share >= THROTTLED_SHARE]
        with self._sampling:
            others = self._neighbours.seen(began_s)
        return [*found, FOREIGN] if others else found

    def sm_clock_mhz_between(self, began_s: float, ended_s: float) -> float | None:
        """Mean clock of the samples in that time; None where there was none, or NVML does not say."""
        clocks = [s.sm_clock_mhz for s in tuple(self._samples) if began_s <= s.at_s <= ended_s]
        known = [clock for clock in clocks if clock is not None]
        return statistics.fmean(known) if known else None

    def sample(self) -> _Sample:
        """Take one sample now."""
        nvml, i = self._nvml, self._index
        with self._sampling:
            taken = _Sample(
                at_s=self._clock_s(),
                memory=nvml.process_memory(i, self._pids, self._used_before_bytes),
                used_bytes=nvml.used_bytes(i),
                sm_clock_mhz=nvml.sm_clock_mhz(i),
                memory_clock_mhz=nvml.memory_clock_mhz(i),
                temperature_c=nvml.temperature_c(i),
                power_w=nvml.power_w(i),
                throttle_reasons=nvml.throttle_reasons(i),
            )
            self._samples.append(taken)
            self._pcie.look(self._clock_s())
            self._neighbours.look_if_due()
        return taken

    def _watch(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.sample()

    def _telemetry(
        self, samples: Sequence[_Sample], pcie: PcieTraffic, rounds: int, duration_s: float, joules: float | None
    ) -> DeviceReadings:
        """Of the whole block, or of somebody's turns; others that computed there are the whole block's."""
        others, reasons = self._neighbours.seen(), dict[str, str]()
        memories = [s.memory for s in samples if s.memory is not None]
        peak = max(memories, key=lambda memory: memory.bytes, default=None)
        if peak is None:
            reasons["peak_process_bytes"] = "pid_hidden"
        if others is None:
            reasons["other_compute_pids"] = "pid_hidden"
        energy = self._energy(samples, rounds, duration_s, joules, reasons)
        if pcie.method is None:
            reasons |= dict.fromkeys(("pcie_rx_bytes", "pcie_tx_bytes"), "not_supported")
        sm_clocks = [s.sm_clock_mhz for s in samples if s.sm_clock_mhz is not None]
        memory_clocks = [s.memory_clock_mhz for s in samples if s.memory_clock_mhz is not None]
        powers = [s.power_w for s in samples if s.power_w is not None]
        telemetry = Telemetry(
            samples=len(samples),
            memory_method=None if peak is None else peak.method,
            peak_used_bytes=max((s.used_bytes for s in samples if s.used_bytes is not None), default=None),
            sm_clock_mhz_mean=statistics.fmean(sm_clocks) if sm_clocks else None,
            sm_clock_mhz_max=max(sm_clocks, default=None),
            memory_clock_mhz_mean=statistics.fmean(memory_clocks) if memory_clocks else None,
            memory_clock_mhz_max=max(memory_clocks, default=None),
            temperature_c_max=max((s.temperature_c for s in samples if s.temperature_c is not None), default=None),
            power_w_mean=statistics.fmean(powers) if powers else None,
            throttled=_throttled(samples),
            other_compute_pids=None if others is None else sorted(others),
            pcie_rx_bytes=pcie.received_bytes,
            pcie_tx_bytes=pcie.transmitted_bytes,
            pcie_method=pcie.method,
        )
        return DeviceReadings(telemetry, None if peak is None else peak.bytes, energy, reasons)

    def _energy(
        self,
        samples: Sequence[_Sample],
        rounds: int,
        duration_s: float,
        joules: float | None,
        reasons: dict[str, str],
    ) -> Energy | None:
        """The counter's difference; where there is no counter, the power samples integrated by trapezoids."""
        if duration_s < ENERGY_BLOCK_S:
            reasons["energy"] = "block_under_10_s"
            return None
        if joules is not None:
            return Energy(joules, rounds, "counter")
        powers = [(s.at_s, s.power_w) for s in samples if s.power_w is not None]
        joules = integral(powers) if samples is self._samples else self._turns.joules(powers, duration_s)
        if joules is None:
            reasons["energy"] = "not_supported"
            return None
        return Energy(joules, rounds, "integrated power")


def _throttled(samples: Iterable[_Sample]) -> dict[str, float] | None:
    """Throttle reason to the share of samples that showed it; None where the driver said nothing."""
    told = [s.throttle_reasons for s in samples if s.throttle_reasons is not None]
    counts = Counter(reason for shown in told for reason in shown)
    return {reason: count / len(told) for reason, count in counts.items()} if told else None
