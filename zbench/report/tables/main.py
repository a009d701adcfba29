"""The main table, one row a COMPLETE trial, as Markdown, terminal text, CSV or JSON.

Every rendering says in its head where figures are not validated on Z-Image-Turbo. Refuses to show
FAILED and PRUNED trials as if they had figures: they are counted here and listed by the report.
"""

import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from zbench.analysis.figures import NOT_VALIDATED, OTHER_DEVICE, TrialFigures
from zbench.analysis.speedup import EQUAL_WORKERS, companion_id
from zbench.analysis.telling import shown_of_all, telling
from zbench.analysis.view import View
from zbench.measurement import QUALITY_ONLY, RANDOM_WEIGHTS
from zbench.report.tables.text_table import LEFT, RIGHT, Align, TextTable, rows_to_csv, to_markdown, to_text
from zbench.report.text import cells
from zbench.report.text.outside import lossy_notes, outside_notes
from zbench.report.text.stacks import stacks_told
from zbench.sanitize import json_text

DEVICE = "device"
MEMORY = "peak memory"
LATENCY = "latency, s [95 %]"
PROJECTED = "latency, s [90 %]"
CACHED = "cached steps"
COLD = "cold, s"
PROMPT = "prompt (worst)"
ENERGY = "J an image"
PSNR = "PSNR, dB"
SSIM = "SSIM (worst)"
CSV_COLUMNS = tuple(f.name for f in fields(TrialFigures) if f.name != "missing")
MEASURES = "zbench doctor --noise"
PROMPT_MEANS = (
    "Prompt: share of the attributes asked for (shape, colour, size, place, count, background, word) that the scene "
    "reader finds right, mean (worst image in brackets)."
)


@dataclass(frozen=True)
class Column:
    """A header, what stands under it, and on which side."""

    header: str
    cell: Callable[[TrialFigures], str]
    align: Align = RIGHT


COLUMNS = (
    Column("trial", cells.label, LEFT),
    Column(DEVICE, lambda row: row.device or cells.ABSENT, LEFT),
    Column(LATENCY, cells.latency),
    Column("p90, s", cells.p90),
    Column(COLD, cells.cold),
    Column("speed-up", cells.speedup_with_interval),
    Column("images/s", cells.images_per_s),
    Column(MEMORY, cells.memory),
    Column(ENERGY, cells.energy),
    Column(CACHED, cells.cached_steps),
    Column(PSNR, cells.psnr),
    Column(SSIM, cells.ssim),
    Column(PROMPT, cells.prompt),
)


def main_table(view: View) -> TextTable:
    """Lay out the COMPLETE trials of `view`, in their order; of very many those that tell most."""
    complete = telling(view.complete)
    columns = [_memory_column(complete) if column.header == MEMORY else column for column in COLUMNS]
    if not _knows_prompts(complete):
        columns = [column for column in columns if column.header != PROMPT]
    if complete and all(map(_has_range, complete)):
        columns = [Column(PROJECTED, c.cell) if c.header == LATENCY else c for c in columns]
    if len({row.device for row in complete if row.device is not None}) < 2:
        columns = [column for column in columns if column.header != DEVICE]
    if not _may_skip(complete):
        columns = [column for column in columns if column.header != CACHED]
    if _random_weights(complete):
        columns = [column for column in columns if column.header not in (PSNR, SSIM)]
    if all(row.joules_an_image is None for row in complete):
        columns = [column for column in columns if column.header != ENERGY]
    if all(cells.cold(row) == cells.ABSENT for row in complete):
        columns = [column for column in columns if column.header != COLD]
    return TextTable(
        head=table_head(complete),
        headers=tuple(column.header for column in columns),
        aligns=tuple(column.align for column in columns),
        rows=tuple(tuple(column.cell(row) for column in columns) for row in complete),
        legend=(
            *shown_of_all(complete, view.complete),
            *stacks_told(view.by_key[row.key].trial for row in complete if row.latency_source == "projected"),
            *_legend(view.trials, complete),
            *_without_a_row(view, complete),
        ),
    )


def table_head(trials: Sequence[TrialFigures]) -> tuple[str, ...]:
    """What must be said above figures that are not of the model, or not of the prompts, that were asked for."""
    kinds = {s for row in trials for s in _sources(row)}
    said = []
    if "projected" in kinds:
        ranges = "; its brackets hold 9 in 10" if any(_has_range(row) for row in trials) else ""
        said.append(f"{cells.PROJECTED_MARK} projected: computed by a roofline, for hardware that is not here{ranges}")
    if "proxy" in kinds:
        said.append(f"{cells.PROXY_MARK} proxy: measured on a smaller model than the one asked for")
    not_validated = [f"{NOT_VALIDATED[0].upper()}{NOT_VALIDATED[1:]}: {'; '.join(said)}."] if said else []
    return (*not_validated, *dict.fromkeys(row.cut_prompts for row in trials if row.cut_prompts))


def to_csv(view: View) -> str:
    """Raw figures of every trial, FAILED and PRUNED included; an absent one is an empty field."""
    return rows_to_csv(map(_csv_row, view.trials), [*CSV_COLUMNS, "validation"])


def _csv_row(row: TrialFigures) -> dict[str, object]:
    values: dict[str, object] = {name: getattr(row, name) for name in CSV_COLUMNS}
    values["caveats"] = "; ".join(row.caveats) or None
    values["validation"] = NOT_VALIDATED if row.source in ("proxy", "projected") else None
    return values


def to_json(view: View) -> str:
    """Raw figures of every trial as JSON without NaN; `head` says what was not validated."""
    head = json.dumps(list(table_head(view.trials)), ensure_ascii=False)
    rows = (json.dumps(row.to_dict(), ensure_ascii=False, allow_nan=False, indent=2) for row in view.trials)
    trials = ",\n".join(textwrap.indent(row, " " * 4) for row in rows)
    return f'{{\n  "head": {head},\n  "trials": [\n{trials}\n  ]\n}}\n'


def render(view: View, form: str) -> str:
    """The table in one of FORMS, which the command line offers as `--format`; no line feed at its end."""
    return FORMS[form](view).rstrip("\n")


FORMS: dict[str, Callable[[View], str]] = {
    "table": lambda view: to_text(main_table(view)),
    "markdown": lambda view: to_markdown(main_table(view)),
    "csv": to_csv,
    "json": lambda view: json_text(to_json(view)),
}


def _memory_column(complete: Sequence[TrialFigures]) -> Column:
    """Which peak is meant stands in the header if it is the same everywhere, else in each cell."""
    kinds = {row.memory_kind for row in complete if row.memory_kind is not None}
    if len(kinds) != 1:
        return Column(MEMORY, cells.memory)
    return Column(f"{MEMORY} ({kinds.pop()})", lambda row: cells.memory(row, with_kind=False))


def _random_weights(complete: Sequence[TrialFigures]) -> bool:
    return bool(complete) and all(row.why_missing("quality") == RANDOM_WEIGHTS for row in complete)


def _knows_prompts(complete: Sequence[TrialFigures]) -> bool:
    return any(row.prompt_fidelity_mean is not None for row in complete)


def _may_skip(complete: Sequence[TrialFigures]) -> bool:
    """Whether any has a cache, or skipped a step all the same."""
    return any(row.family != "none" or row.cached_steps for row in complete)


def _has_range(row: TrialFigures) -> bool:
    """Whether it is a projection that says how far off it may be."""
    return row.latency_source == "projected" and row.latency_low_s is not None


def _sources(row: TrialFigures) -> tuple[str | None, ...]:
    return row.latency_source, row.memory_source, row.cached_steps_source, row.quality_source


def _legend(trials: Sequence[TrialFigures], complete: Sequence[TrialFigures]) -> tuple[str, ...]:
    lines = [*_what_is_what(complete), *_of_intervals(complete), *_of_speedups(complete)]
    limited = [row.power_limited for row in complete if row.power_limited]
    if limited:
        low, high = cells.percent(min(limited)), cells.percent(max(limited))
        share = low if low == high else f"{low} to {high}"
        lines.append(f"The GPU was at its power limit in {share} of the samples, which then sets its clock.")
    lines += [*outside_notes(complete), *lossy_notes(complete)]
    beside = [row.label for row in complete if row.ran_beside]
    if beside:
        shared = "which share power, host link and cores with them"
        lines.append(f"{cells.listed(beside)} ran beside other trials of the machine, {shared}.")
    doubted: dict[str, list[str]] = {}
    for row in complete:
        if row.caveats:
            doubted.setdefault("; ".join(row.caveats), []).append(row.label)
    lines += [f"{cells.UNTRUSTED_MARK} {', '.join(labels)}: {why}." for why, labels in doubted.items()]
    untimed = [row for row in complete if row.is_untimed]
    if untimed:
        lines.append(
            f"{cells.trials(len(untimed))} without a time ({QUALITY_ONLY}): images alone were asked for, one request a "
            "sample and no warm-up."
        )
    lines += _without(trials, complete)
    for state, word in (("FAILED", "failed"), ("PRUNED", "pruned before launch")):
        number = sum(row.state == state for row in trials)
        if number:
            lines.append(f"{cells.trials(number)} {word}.")
    return tuple(lines)


def _without(trials: Sequence[TrialFigures], complete: Sequence[TrialFigures]) -> list[str]:
    """What the trials are not held to, because it FAILED."""
    lines = []
    for row in (row for row in trials if row.state == "FAILED"):
        held = {
            "no image is judged against it": [other.reference_id for other in complete if other.sweep == row.sweep],
            "no speed-up is over it": [other.baseline_id for other in complete if other.sweep == row.sweep],
        }
        lost = [what for what, ids in held.items() if row.trial_id in ids]
        if lost:
            lines.append(f"{row.label} FAILED ({row.reason_code}): {' and '.join(lost)}.")
    return lines


def _what_is_what(complete: Sequence[TrialFigures]) -> list[str]:
    lines = []
    if complete:
        likeness = "PSNR and SSIM: likeness to the reference's images, mean (worst image in brackets)."
        latency = "median of the warm rounds with its 95 % interval"
        latency = "median of the projected rounds with its 90 % range" if all(map(_has_range, complete)) else latency
        lines.append(
            f"Latency: {latency}. Speed-up: the baseline's time for the whole workload over the trial's, from the "
            "median of each prompt and seed. "
            + ("Cached steps: mean an image. " if _may_skip(complete) else "")
            + ("Weights are random, so nothing is said of images." if _random_weights(complete) else likeness)
        )
    lines += _of_cold(complete)
    lines += [
        f"{row.label} is the reference because without offload it does not fit; offload changes no image."
        for row in complete
        if row.is_reference and row.offload != "none"
    ]
    others = dict.fromkeys(row.reference_weights for row in complete if row.reference_weights is not None)
    lines += [
        f"Images are judged against those of pipeline.weights={weights} without a LoRA (sweep.reference_weights); "
        "speed-ups are over it too, unless sweep.baseline names another."
        for weights in others
    ]
    if any(row.images > 1 for row in complete):
        lines.append("Where a call makes several images, latency is the call's.")
    if _knows_prompts(complete):
        lines.append(PROMPT_MEANS)
    if any(row.within_noise and not row.is_identical for row in complete):
        lines.append(
            "Under noise: no image differs from the reference's by more than the reference's own do from one run to "
            "the next."
        )
    return lines


def _of_speedups(complete: Sequence[TrialFigures]) -> list[str]:
    """How they were measured."""
    of_way = {way: [row for row in complete if row.speedup_way == way] for way in ("chained", "unpaired")}
    lines = []
    if any(row.speedup_way in ("paired", "chained") for row in complete):
        lines.append(
            "Speed-ups with their 95 % interval: each request over that of the uncached trial which took turns with "
            "it, so a machine that slows down slows both."
        )
    how = {
        "chained": "over the uncached trial of its own process, times that one's speed-up",
        "unpaired": "not by turns, each at a time of its own",
    }
    lines += [
        f"{cells.listed([row.label for row in rows])}: {how[way]}; {_of_processes(rows)}."
        for way, rows in of_way.items()
        if rows
    ]
    return [*lines, *_of_other_machines(complete, [row for rows in of_way.values() for row in rows])]


def _of_other_machines(complete: Sequence[TrialFigures], not_by_turns: Sequence[TrialFigures]) -> list[str]:
    """Where what a speed-up is over was measured on another machine of a cluster, and where there is none for that."""
    nodes = {row.key: row.node for row in complete}
    away = [row.label for row in not_by_turns if nodes.get((row.sweep, row.baseline_id), row.node) != row.node]
    none = [row.label for row in complete if row.why_missing("speedup") == OTHER_DEVICE]
    lines = []
    if away:
        lines.append(
            f"{cells.listed(away)}: the baseline was measured on another machine of the same kind; what equal machines "
            "differ by is not in the interval."
        )
    if none:
        lines.append(f"{cells.listed(none)}: no speed-up, for the baseline was measured on another kind of device.")
    return lines


def _without_a_row(view: View, complete: Sequence[TrialFigures]) -> list[str]:
    """Chained speed-ups that go through an uncached trial which was not asked for."""
    found = []
    for row in (row for row in complete if row.speedup_way == "chained"):
        measured = view.by_key[row.key].measurement
        beside = None if measured is None else companion_id(measured)
        if beside is not None and (row.sweep, beside) not in view.by_key:
            found.append(row.label)
    if not found:
        return []
    whose = "the uncached trial beside it" if len(found) == 1 else "the uncached trial beside each"
    return [
        f"{cells.listed(found)}: {whose} has no row of its own, so that its requests in the same window stand for it; "
        "zbench plan names the values that add the row."
    ]


def _of_processes(rows: Sequence[TrialFigures]) -> str:
    """What intervals of `rows`, between processes, count besides."""
    measured: dict[str, dict[str, None]] = {}  # by the share as it is shown, what is told of it
    for row in sorted((r for r in rows if r.equal_workers is not None), key=lambda r: r.equal_workers or 0.0):
        told = measured.setdefault(f"{row.equal_workers:.1%}", {})
        told |= {} if row.equal_workers_told is None else {row.equal_workers_told: None}
    said = [f"{share} ({MEASURES}, {'; '.join(told)})" if told else share for share, told in measured.items()]
    assumed = [row.equal_workers_told for row in rows if row.equal_workers is None]
    if assumed:
        elsewhere = "; ".join(dict.fromkeys(told for told in assumed if told is not None))
        anew = f"{MEASURES} would measure" + (f" anew, for what it did is of {elsewhere}" if elsewhere else "")
        said.append(f"{EQUAL_WORKERS:.0%}, which {anew}")
    return f"the interval counts that equal processes differ by {' or '.join(said)}"


def _of_cold(complete: Sequence[TrialFigures]) -> list[str]:
    """What stands beside the warm latency, and why there may be less than that."""
    if all(cells.cold(row) == cells.ABSENT for row in complete):
        return []
    said = "Cold: seconds to load the pipeline, and of the first request after that."
    if any(cells.cold(row).startswith(cells.RESIDENT) for row in complete):
        said += " Resident: it was loaded before"
        paid = any(row.resident_load_s is not None for row in complete)
        said += "; in brackets what the trial paid that it was loaded for." if paid else "."
    if any(row.compile_s for row in complete):
        said += " Compiling: seconds that code was compiled or captured, in all of the trial's calls."
    return [said]


def _of_intervals(complete: Sequence[TrialFigures]) -> list[str]:
    lines = []
    if any(row.latency_low_s is not None and not _has_range(row) for row in complete):
        lines.append(
            "Rounds stop once the interval is small, so a little less than 95 % of such intervals hold the true value."
        )
    sequential = [row for row in complete if row.arrivals == "sequential"]
    if any(row.latency_low_s is None and row.latency_source != "projected" for row in sequential):
        lines.append("A latency without an interval has fewer than the 6 rounds that a 95 % interval needs.")
    return lines
