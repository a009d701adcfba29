"""zbench's device memory and energy over what nvidia-smi saw of the same rounds: the goal is within 3 %.

    python benchmarks/agreement/device.py [--seconds 20] [OVERRIDE ...]
    python benchmarks/agreement/device.py pipeline=zimage_turbo pipeline.weights=random

Overrides are zbench's; by default the tiny pipeline runs. nvidia-smi samples in a process of its own every 50 ms,
zbench's gauges read as in a worker. Needs an NVIDIA GPU that nobody else uses; without nvidia-smi it exits with 2.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smi import MIB, Sample, SmiError, joules, peak_bytes, read_samples, sampling

from zbench.hardware.detect import present_devices
from zbench.hardware.nvml import Nvml
from zbench.probes.watched import Watched
from zbench.worker.gauges import Gauges, Readings

DEFAULTS = ("pipeline=zimage_tiny", "hardware=auto", "workload=single")
GOAL = 0.03
WARM_UP_S = 3.0
"""nvidia-smi's power is a mean over the last second: it is to be that of rounds when the block begins."""


@dataclass(frozen=True)
class Span:
    """What zbench read over a block of rounds, and when that was, in seconds since the epoch."""

    readings: Readings
    began_s: float
    ended_s: float
    spoilt: tuple[str, ...]  # why rounds would not have counted


@dataclass(frozen=True)
class Pair:
    """One figure by both."""

    name: str
    ours: float | None
    theirs: float | None
    scale: float
    unit: str

    @property
    def ratio(self) -> float | None:
        """Ours over theirs; None where either has no figure."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def line(self) -> str:
        """For a person."""
        ours, theirs = (
            "no figure" if figure is None else f"{figure / self.scale:,.1f} {self.unit}"
            for figure in (self.ours, self.theirs)
        )
        ratio = "none" if self.ratio is None else f"{self.ratio:.4f}"
        return f"{self.name}: zbench {ours}, nvidia-smi {theirs}, ratio {ratio}"


def watched(call: Callable[[], None], gauges: Gauges, runs_on: Watched, seconds: float) -> Span:
    """Rounds for so long under the gauges, after a warm-up."""
    warm_until = time.monotonic() + WARM_UP_S
    while True:
        call()
        if time.monotonic() >= warm_until:
            break
    spoilt: dict[str, None] = {}
    rounds = 0
    gauges.start(runs_on)
    began_s, until = time.time(), time.monotonic() + seconds
    while time.monotonic() < until:
        gauges.begin_round()
        call()
        spoilt |= dict.fromkeys(gauges.end_round())
        rounds += 1
    ended_s = time.time()
    return Span(gauges.stop(rounds), began_s, ended_s, tuple(spoilt))


def compared(span: Span, samples: Sequence[Sample]) -> list[Pair]:
    """Every figure that both have an eye on."""
    readings = span.readings
    check = readings.telemetry.memory_check
    accounted = None if check is None else check.torch_reserved_bytes + check.context_bytes
    peak = peak_bytes(samples, span.began_s, span.ended_s)
    method = readings.telemetry.memory_method
    memory = {
        f"peak of the process ({method})": readings.memory.peak_device_bytes,
        "peak of the whole device": readings.telemetry.peak_used_bytes,
        "torch's reserved peak and the context": accounted,
    }
    energy = readings.energy
    pairs = [Pair(name, figure, peak, MIB, "MiB") for name, figure in memory.items()]
    energy_j = joules(samples, span.began_s, span.ended_s)
    name = f"energy ({energy.method})" if energy else "energy"
    return [*pairs, Pair(name, energy.joules if energy else None, energy_j, 1.0, "J")]


def main() -> None:
    """Print a line a figure; exit 1 if one is further off or missing, 2 where there is nothing to compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timed rounds; under 10 there is no energy")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=f"beside {' '.join(DEFAULTS)}")
    arguments = parser.parse_args()
    if shutil.which("nvidia-smi") is None:
        _leave("nvidia-smi is not on PATH: this needs a machine with an NVIDIA GPU and its driver")
    nvml = Nvml()
    devices = present_devices(nvml)
    if not devices:
        _leave("NVML shows no GPU that CUDA may use here, so zbench has nothing to compare with nvidia-smi")
    gauges = Gauges(nvml)  # before anything touches the GPU, as in a worker
    from call import Call, chosen

    try:
        with sampling(devices[0].uuid) as out:
            call = Call(chosen(DEFAULTS, arguments.overrides))
            span = watched(call, gauges, call.engine.watch(), arguments.seconds)
            samples = read_samples(out.read_text(errors="replace"))
    except SmiError as error:
        _leave(str(error))
    pairs = compared(span, samples)
    inside = sum(span.began_s <= sample.at_s <= span.ended_s for sample in samples)
    print(f"{devices[0].name}, {len(call.latencies_s)} calls; {inside} of {len(samples)} samples are in the block")
    for pair in pairs:
        print(pair.line)
    for path, reason in span.readings.reasons.items():
        print(f"zbench has no {path}: {reason}")
    for doubt in (*span.readings.validity, *(f"rounds did not count: {reason}" for reason in span.spoilt)):
        print(f"doubt: {doubt}")
    missed = sum(pair.ratio is None or abs(pair.ratio - 1) > GOAL for pair in pairs)
    print(f"goal: within {GOAL:.0%}: {'holds' if not missed else f'{missed} of {len(pairs)} missed'}")
    call.engine.close()
    sys.exit(1 if missed else 0)


def _leave(why: str) -> None:
    print(why, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
