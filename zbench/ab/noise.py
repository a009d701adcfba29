"""How steady this machine is, and how many rounds an A/B therefore needs here; it judges no version."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.status import Status

from zbench.ab.equal_workers import equal_pairs
from zbench.ab.interleave import TURNS, rounds_a_turn, turn_medians
from zbench.ab.schedule import BLOCK_LOOKS
from zbench.ab.side import Side, SideFailed, SideWorker, present_trial, turn_of, warm_up
from zbench.analysis.caveats import levels_told
from zbench.composition import overlay
from zbench.config import MeasureConfig
from zbench.engines import Descriptions
from zbench.hardware.detect import present_devices
from zbench.hardware.equal_workers import MOST, spread_of, store_equal_workers
from zbench.report.tables.text_table import RIGHT, TextTable, to_text
from zbench.sanitize import json_text, printable
from zbench.stats import blocks_needed, drift, median, relative_spread, two_modes
from zbench.streams import talk
from zbench.sweeper.conduct import check_weights
from zbench.sweeper.here import one_job
from zbench.sweeper.progress import duration

CHANGES = (0.01, 0.02, 0.05)
MEASURED_TURNS = 64
TURNS_PER_BLOCK = 2 * TURNS


@dataclass(frozen=True)
class Need:
    """How many rounds, of both sides together, tell a change in 9 of 10 A/Bs; None: more than an A/B makes."""

    change: float
    rounds: int | None


@dataclass(frozen=True)
class Noise:
    """What one resident worker's equal rounds look like. Shares are of the median."""

    label: str
    median_s: float
    spread: float  # of a turn, robust
    drift_share: float  # over all rounds
    disturbed: tuple[str, ...]  # what disturbed rounds, once a disturbed round
    latencies_s: tuple[float, ...]
    rounds_a_turn: int
    needs: tuple[Need, ...]
    equal_workers: float | None = None  # by how much processes of the same code differ; None: not measured
    equal_workers_reason: str | None = None


def measure_noise(side: Side, measure: MeasureConfig, show: Callable[[str], None]) -> Noise:
    """Warm up, then make 64 turns' images of the workload's first pair. Raises SideFailed."""
    with TemporaryDirectory(prefix="zbench-noise-") as folder:
        worker = SideWorker([side], Path(folder) / "worker.log", measure.timeout_s)
        try:
            show("loading")
            worker.prepare(time.perf_counter())
            bound = measure.max_warmup_rounds
            warm = warm_up({side.name: worker}, bound, lambda _, latency_s: show(f"warming up: {latency_s:.3f} s"))[
                side.name
            ]
            a_turn = rounds_a_turn(min(warm))
            rounds = MEASURED_TURNS * a_turn
            made = []
            for index in range(rounds):
                made.append(worker.generate(side.name, 0))
                left_s = (rounds - index - 1) * median([r.latency_s for r in made])
                show(f"round {index + 1} of {rounds}, {left_s:.0f} s left")
        finally:
            worker.close()
    latencies = [r.latency_s for r in made]
    show("drawing A/Bs from these rounds")
    return Noise(
        label=f"{side.trial.pipeline.name}, {side.trial.label}",
        median_s=median(latencies),
        spread=relative_spread(turn_medians(latencies, MEASURED_TURNS)) or 0.0,
        drift_share=drift(latencies).per_round * (len(latencies) - 1) / median(latencies),
        disturbed=tuple(cause for r in made for cause in (*r.disturbances, *r.invalid_reasons)),
        latencies_s=tuple(latencies),
        rounds_a_turn=a_turn,
        needs=tuple(Need(change, _rounds_needed(latencies, a_turn, change)) for change in CHANGES),
    )


def _rounds_needed(latencies: Sequence[float], a_turn: int, change: float) -> int | None:
    blocks = blocks_needed(turn_medians(latencies, MEASURED_TURNS), change, BLOCK_LOOKS)
    return None if blocks is None else blocks * TURNS_PER_BLOCK * a_turn


def doctor_noise(overrides: list[str], config_dir: str | None, form: str, *, allow_code: bool = False) -> str:
    """Measure the noise of a trial here (by default that of `zbench run`, one prompt) and say it as table or json."""
    config = one_job(overlay(["workload=single"], overrides), config_dir, allow_code=allow_code)
    trial = present_trial("--noise", config, overrides, Descriptions(allow_code=allow_code))
    check_weights([trial])
    console = Console(stderr=True, emoji=False)
    side = Side("a", trial, allow_code=allow_code)
    turn = turn_of([side], "doctor --noise", share=config.executor.share_device)
    with turn.taken(talk), console.status("starting the worker") as status:
        noise = with_equal_workers(measure_noise(side, config.measure, status.update), side, config.measure, status)
    return render_noise(noise, form)


def with_equal_workers(noise: Noise, side: Side, measure: MeasureConfig, status: Status) -> Noise:
    """With what pairs of workers differ by, kept for this machine's records. Two may be more than a device can hold."""
    with TemporaryDirectory(prefix="zbench-noise-") as folder:
        try:
            ratios = equal_pairs(side, measure, Path(folder), status.update)
        except SideFailed as failure:
            return replace(noise, equal_workers_reason=str(failure))
    if max(map(abs, ratios)) > MOST:
        return replace(noise, equal_workers_reason="one took nearly three times as long as its equal; measure again")
    of_gpu = present_devices() if side.trial.compute.device == "cuda" else []
    store_equal_workers(of_gpu, noise.label, ratios)
    return replace(noise, equal_workers=spread_of(ratios))


def render_noise(noise: Noise, form: str) -> str:
    """`form` is table or json."""
    if form == "json":
        return json_text(json.dumps(asdict(noise), ensure_ascii=False, allow_nan=False, indent=2))
    rounds = len(noise.latencies_s)
    lines = [
        f"{printable(noise.label)}: {rounds} rounds, median {noise.median_s:.3f} s",
        f"a turn of {noise.rounds_a_turn} scatters by {noise.spread:.1%}, drift over all {noise.drift_share:+.1%}",
    ]
    if noise.equal_workers is None:
        lines.append(f"processes of the same code beside each other: {noise.equal_workers_reason}")
    else:
        counted = "speed-ups between processes on that device count it now"
        lines.append(f"processes of the same code differ by {noise.equal_workers:.1%}; {counted}")
    modes = two_modes([(0, latency_s) for latency_s in noise.latencies_s])
    lines += [] if modes is None else [levels_told(modes)]
    if noise.disturbed:
        causes = Counter(noise.disturbed).most_common()
        lines.append("disturbed: " + ", ".join(f"{cause.replace('_', ' ')} in {n} rounds" for cause, n in causes))
    rows = tuple((f"{need.change:.0%}", *_cost(need, noise)) for need in noise.needs)
    headings = ("change", "rounds", "time")
    lines += ["", "zbench ab here, to call a change in 9 of 10 runs (margin: half of it; rounds of both sides):"]
    return "\n".join([*lines, to_text(TextTable((), headings, (RIGHT, RIGHT, RIGHT), rows, ()))])


def _cost(need: Need, noise: Noise) -> tuple[str, str]:
    if need.rounds is None:
        return f"more than {BLOCK_LOOKS.looks[-1] * TURNS_PER_BLOCK * noise.rounds_a_turn}", "–"
    return str(need.rounds), duration(need.rounds * noise.median_s)
