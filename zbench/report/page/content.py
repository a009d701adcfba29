"""What a report says, before it is Markdown or HTML: every renderer shows this and adds nothing of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from zbench.analysis.figures import TrialFigures
from zbench.analysis.rates import rate_curves
from zbench.analysis.searches import judged_works, search_curves
from zbench.analysis.stages import stage_seconds
from zbench.analysis.steps import skip_shares
from zbench.analysis.telling import MOST_WHOLE, telling
from zbench.analysis.view import View
from zbench.record import Reason, Record
from zbench.report.page.images import Strip, strips
from zbench.report.page.parallel import ParallelSection, parallel_section
from zbench.report.page.serving import ServingSection, serving_section
from zbench.report.plots import figures as plots
from zbench.report.plots.canvas import png_bytes
from zbench.report.plots.rates import responses_over_rates
from zbench.report.plots.residuals import residual_differences, telling_residuals
from zbench.report.plots.scaling import speedup_over_devices
from zbench.report.plots.searches import REFERENCE_POINT, likeness_over_cost, volume_over_trials
from zbench.report.tables.effects import effects_table
from zbench.report.tables.holdout import TITLE as HELD_OUT
from zbench.report.tables.holdout import holdout_table
from zbench.report.tables.main import main_table
from zbench.report.tables.offload import offload_table
from zbench.report.tables.published import published_table
from zbench.report.tables.quality import quality_table
from zbench.report.tables.stages import stage_table
from zbench.report.tables.text_table import TextTable
from zbench.report.text import cells
from zbench.report.text.findings import findings
from zbench.report.text.knobs import knobs_without_effect
from zbench.report.text.setting import environment_lines, not_as_asked
from zbench.sanitize import without_folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Candidate: TypeAlias = "tuple[str, str, str, Callable[[], Figure | None]]"
"""A plot's file name, title and what it shows, and what draws it."""

HOW_TO_READ = (
    "The reference is the same work in native precision on one device, with nothing skipped: every trial's images are "
    "judged against its own. The baseline is what a speed-up is over: the reference, unless sweep.baseline named "
    "another setting.",
    "A label reads F first blocks, B last blocks, W warm-up steps, MC most steps skipped in a row, R threshold of the "
    "residual difference, T1O TaylorSeer and its order: cache-dit's own names.",
    "A speed-up is the baseline's time for the whole workload over the trial's, each the sum of the medians of the "
    "prompts and seeds that both have. PSNR and SSIM compare a trial's images with the "
    "reference's of the same prompts and seeds: they say how much an image changed, not how good it is.",
    "Beneath a trial's image is its absolute difference from the reference's, amplified four times; identical images "
    "have none.",
    "Every figure is derived from the raw samples in records.jsonl.",
)


@dataclass(frozen=True)
class Plot:
    """One figure, its file name and what it shows."""

    file_name: str
    title: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Unmeasured:
    """A trial without figures, FAILED or PRUNED, and why."""

    label: str
    state: str
    code: str
    message: str
    log_tail: str


@dataclass(frozen=True)
class Page:
    """Everything on a report; `tables` are those below the main one."""

    title: str
    findings: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    table: TextTable
    quality: TextTable | None
    stages: TextTable | None
    effects: TextTable | None
    offload: TextTable | None
    holdout: TextTable | None
    parallel: ParallelSection | None
    serving: ServingSection | None
    published: TextTable | None
    plots: tuple[Plot, ...]
    missing_plots: tuple[str, ...]
    knobs: tuple[str, ...]
    strips: tuple[Strip, ...]
    not_as_asked: tuple[tuple[str, tuple[str, ...]], ...]
    unmeasured: tuple[Unmeasured, ...]
    assumptions: tuple[str, ...]
    how_to_read: tuple[str, ...] = HOW_TO_READ

    @property
    def tables(self) -> tuple[tuple[str, TextTable], ...]:
        """Those that there are, by title."""
        titled = (
            ("Quality", self.quality),
            (HELD_OUT, self.holdout),
            ("Stages", self.stages),
            ("One knob at a time", self.effects),
            ("Offloading", self.offload),
        )
        return tuple((title, table) for title, table in titled if table is not None)


def make_page(view: View, run_folders: Mapping[str, Path]) -> Page:
    """A report on the trials of one or more sweeps; images are read from each sweep's run folder."""
    few = view.only({row.key for row in [*telling(view.complete), *_unlucky(view)]})
    drawn, missing = _plots(view, few)
    return Page(
        title=" and ".join(dict.fromkeys(sweep for sweep, _ in view.by_key)),
        findings=tuple(findings(view.trials)),
        environment=tuple(environment_lines(view.journal)),
        table=main_table(view),
        quality=quality_table(few),
        stages=stage_table(few),
        effects=effects_table(few),
        offload=offload_table(few),
        holdout=holdout_table(view),
        parallel=parallel_section(view, few),
        serving=serving_section(few),
        published=published_table(few.records),
        plots=tuple(drawn),
        missing_plots=tuple(missing),
        knobs=tuple(knobs_without_effect(few)),
        strips=tuple(strips(few, run_folders)),
        not_as_asked=tuple((row.label, tuple(said)) for row, r in few.pairs if (said := not_as_asked(r))),
        unmeasured=tuple(_unmeasured(row, record) for row, record in few.pairs if row.state != "COMPLETE"),
        assumptions=_assumptions(few.records),
    )


def _unlucky(view: View) -> list[TrialFigures]:
    """The trials without figures that a page can list: the others are counted below the table."""
    by_state = [[row for row in view.trials if row.state == state] for state in ("FAILED", "PRUNED")]
    return [row for rows in by_state for row in rows[:MOST_WHOLE]]


def _plots(view: View, few: View) -> tuple[list[Plot], list[str]]:
    trials = view.complete
    measured = {cells.label(row): (row, m) for row, r in few.pairs if (m := r.valid_measurement) is not None}
    stages = {label: stage_seconds(m) for label, (_, m) in measured.items()}
    shares = {label: skip_shares(m, row.steps or 0) for label, (row, m) in measured.items()}
    candidates: tuple[Candidate, ...] = (
        (
            "speedup_vs_fidelity.png",
            "Speed-up against fidelity",
            "Each trial's speed-up over the SSIM of its worst image, with the Pareto front",
            lambda: plots.speedup_vs_fidelity(trials),
        ),
        (
            "stages.png",
            "Where the time goes",
            "Seconds of text encoding, denoising and decoding of each trial",
            lambda: plots.stage_breakdown(stages, trials),
        ),
        (
            "cached_steps.png",
            "Skipped steps",
            "For each trial and step, the share of images that skipped it",
            lambda: plots.cached_step_map(shares, trials),
        ),
        (
            "residual_differences.png",
            "Residual differences by step",
            "For trials with DBCache, the residual difference of each step and the threshold it is held against",
            lambda: residual_differences(telling_residuals(few), trials),
        ),
    )
    if any(row.devices > 1 for row in few.complete):
        title, alt = (
            "Speed-up over devices",
            "Speed-up of each topology over the number of devices, with the ideal line",
        )
        candidates = (*candidates, ("speedup_over_devices.png", title, alt, lambda: speedup_over_devices(few)))
    candidates = (*candidates, *_of_searches(view))
    curves = rate_curves(few)
    if curves:
        title, alt = (
            "Responses over the rate",
            "p50 and p95 from due to done, and the goodput, over the rate of arrivals",
        )
        candidates = (*candidates, ("rates.png", title, alt, lambda: responses_over_rates(curves, few)))
    drawn, missing = [], []
    for name, title, alt, draw in candidates:
        try:
            figure = draw()
            png = None if figure is None else png_bytes(figure)
        except Exception as error:  # a sweep is not to end for want of a picture
            missing.append(f"{title}: it could not be drawn ({type(error).__name__}: {' '.join(str(error).split())}).")
            continue
        if png is None:
            missing.append(f"{title}: no trial has the figures for it.")
        else:
            drawn.append(Plot(name, title, alt, png))
    return drawn, missing


def _of_searches(view: View) -> Iterator[Candidate]:
    """What only a report of a search has."""
    works = judged_works(view)
    if works:
        title, alt = (
            "Likeness against cost",
            "SSIM of each trial's worst image over the steps that it computes, with the front of the worst image and "
            "that of the mean",
        )
        yield "likeness_over_cost.png", title, alt, lambda: likeness_over_cost(works)
    curves = search_curves(view)
    if curves:
        title, alt = (
            "Hypervolume against trials",
            f"For each search the hypervolume of cost and likeness after each trial; the reference point is "
            f"{REFERENCE_POINT}",
        )
        yield "hypervolume.png", title, alt, lambda: volume_over_trials(curves)


def _unmeasured(row: TrialFigures, record: Record) -> Unmeasured:
    reason = record.reason
    tail = without_folders("\n".join(reason.log_tail)) if reason else ""  # older records have them
    message = without_folders("; ".join([row.reason or "", *(_memory_then(reason) if reason else [])]))
    return Unmeasured(row.label, row.state, row.reason_code or "unknown", message, tail)


def _memory_then(reason: Reason) -> list[str]:
    """What was on the device when it ran out of memory, and what is predicted to fit."""
    memory = reason.memory or {}
    said = [f"torch held {cells.gib(memory['peak_allocated'])} at most"] if "peak_allocated" in memory else []
    return said + ([f"predicted to fit: offload={reason.next_offload}"] if reason.next_offload else [])


def _assumptions(records: Iterable[Record]) -> tuple[str, ...]:
    projections = [m.projection for r in records if (m := r.valid_measurement) is not None and m.projection]
    said = dict.fromkeys(text for projection in projections for text in projection.assumptions)
    floors = [projection.floor_s for projection in projections]
    if not floors:
        return ()
    floor = f"Floor: with every efficiency at 1 and no skipped step an image would take {cells.digits(min(floors))} s."
    return (*said, floor)
