"""What several devices bought: tables of topologies, of their stages and of their ranks; formats finished figures."""

from collections.abc import Sequence

from zbench.analysis.metrics import STAGES
from zbench.analysis.scaling import REQUEST, StageScaling
from zbench.analysis.sharded import ShardedTrial
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable
from zbench.report.text import cells

HEADERS = (
    "trial",
    "devices",
    "request, s",
    "speed-up",
    "efficiency",
    "forward, ms",
    "its speed-up",
    "decode, ms",
    "exposed communication",
    "memory a rank",
    "images/s",
)
WORDS = {"text_encode": "text encode", "denoise": "denoise", "decode": "decode", REQUEST: "request"}


def topology_table(trials: Sequence[ShardedTrial]) -> TextTable | None:
    """One row a trial on several devices, below its setting on one device; None where there is none."""
    if not trials:
        return None
    return TextTable(
        head=(),
        headers=HEADERS,
        aligns=(LEFT, *[RIGHT] * (len(HEADERS) - 1)),
        rows=tuple(map(_row, trials)),
        legend=(
            "Speed-up: the request of the same setting on one device over its own. Efficiency: device-seconds an image "
            "on one device over its own; with data parallelism (dp) a request makes several images. Exposed "
            "communication: the share of the forwards in which nothing but a collective ran, on the rank that waits "
            "most. Memory a rank: the fullest rank's peak.",
            *_uncompared(trials),
            *_otherwise(trials),
        ),
    )


def stage_scaling_table(trials: Sequence[ShardedTrial]) -> TextTable | None:
    """Speed-up and efficiency of each stage; None where nothing is compared with one device."""
    compared = [(t, t.scaling) for t in trials if t.scaling is not None and t.scaling.stages]
    if not compared:
        return None
    stages = [s for s in (*STAGES, REQUEST) if any(s in scaling.stages for _, scaling in compared)]
    bounded = any(scaling.amdahl is not None for _, scaling in compared)
    headers = ["trial", *(WORDS[s] for s in stages), *(["does not scale, ms", "bound (any number)"] if bounded else [])]
    rows = []
    for trial, scaling in compared:
        row = [cells.label(trial.row), *(_stage(trial, scaling.stages.get(s)) for s in stages)]
        if bounded and scaling.amdahl is not None:
            amdahl = scaling.amdahl
            serial = cells.digits(1e3 * sum(amdahl.serial_s.values()))
            row += [_marked(trial, serial), _marked(trial, f"{amdahl.bound_here:.2f}× ({amdahl.bound:.2f}×)")]
        elif bounded:
            row += [cells.ABSENT, cells.ABSENT]
        rows.append(tuple(row))
    legend = ["Speed-up (efficiency) of each stage over the same setting on one device."]
    if bounded:
        legend.append(
            "Does not scale: what of one device's request is not split over the ranks, which bounds the speed-up of "
            "an image (Amdahl): on these devices, and on any number."
        )
    return TextTable((), tuple(headers), (LEFT, *[RIGHT] * (len(headers) - 1)), tuple(rows), tuple(legend))


def rank_table(trials: Sequence[ShardedTrial]) -> TextTable | None:
    """Each rank's own times and peak, never pooled; None where no record has any."""
    rows = []
    for trial in trials:
        for rank in trial.ranks:
            peak = cells.ABSENT if rank.peak_bytes is None else f"{cells.gib(rank.peak_bytes)} ({rank.peak_kind})"
            exposed = cells.ABSENT if rank.exposed is None else cells.percent(rank.exposed, 1)
            stages = [rank.stages_s.get(stage) for stage in STAGES]
            rows.append(
                (
                    cells.label(trial.row),
                    str(rank.rank),
                    rank.device or cells.ABSENT,
                    cells.digits(rank.latency_s),
                    *(cells.ABSENT if s is None else cells.digits(s) for s in stages),
                    _ms(rank.forward_s),
                    exposed,
                    peak,
                )
            )
    if not rows:
        return None
    stages_of = [f"{WORDS[stage]}, s" for stage in STAGES]
    headers = (
        "trial",
        "rank",
        "device",
        "request, s",
        *stages_of,
        "forward, ms",
        "exposed communication",
        "peak memory",
    )
    legend = ("Medians and peaks of each rank's own requests. A request is as slow as its slowest rank.",)
    return TextTable((), headers, (LEFT, RIGHT, LEFT, *[RIGHT] * (len(headers) - 3)), tuple(rows), legend)


def _row(trial: ShardedTrial) -> tuple[str, ...]:
    row, scaling = trial.row, trial.scaling
    request = None if scaling is None else scaling.request
    forward = None if scaling is None else scaling.forward
    exposed, peak = row.exposed_communication, row.rank_memory_bytes
    return (
        cells.label(row),
        str(row.devices),
        cells.median_s(row),
        cells.ABSENT if request is None else _marked(trial, f"{request.speedup:.2f}×"),
        cells.ABSENT if request is None else _marked(trial, cells.percent(request.efficiency)),
        _marked(trial, _ms(trial.forward_s)),
        cells.ABSENT if forward is None else _marked(trial, f"{forward.speedup:.2f}×"),
        _marked(trial, _ms(trial.decode_s)),
        cells.ABSENT if exposed is None else cells.percent(exposed, 1),
        cells.memory(row, with_kind=False) if peak is None else cells.mark(cells.gib(peak), row.memory_source),
        cells.images_per_s(row),
    )


def _stage(trial: ShardedTrial, scaling: StageScaling | None) -> str:
    if scaling is None:
        return cells.ABSENT
    return _marked(trial, f"{scaling.speedup:.2f}× ({cells.percent(scaling.efficiency)})")


def _marked(trial: ShardedTrial, text: str) -> str:
    return cells.mark(text, trial.row.latency_source)


def _ms(seconds: float | None) -> str:
    return cells.ABSENT if seconds is None else cells.digits(1e3 * seconds)


def _otherwise(trials: Sequence[ShardedTrial]) -> list[str]:
    """A line for what one device computes otherwise under the same words, with the trials that are held against it."""
    held: dict[tuple[str, ...], list[str]] = {}
    for trial in trials:
        if trial.scaling is not None and trial.scaling.otherwise:
            held.setdefault(trial.scaling.otherwise, []).append(trial.row.label)
    return [
        f"{cells.listed(labels)}: on one device the same words mean {' '.join(knobs)}."
        for knobs, labels in held.items()
    ]


def _uncompared(trials: Sequence[ShardedTrial]) -> list[str]:
    """A line for each reason why trials have no speed-up, with the trials it holds for."""
    why: dict[str, list[str]] = {}
    for trial in trials:
        if trial.scaling is not None and trial.scaling.why_none is not None:
            why.setdefault(trial.scaling.why_none, []).append(trial.row.label)
    return [f"No speed-up of {cells.listed(labels)}: {reason}." for reason, labels in why.items()]
