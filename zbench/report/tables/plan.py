"""A plan as a table: its trials in order, those pruned and why, and what time and memory to expect.

Expectations are a roofline's and say so; a sweep that was run before knows better (`zbench report`).
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

from zbench.config import DBCacheConfig, HardwareConfig, SCMConfig
from zbench.errors import ConfigError
from zbench.hardware.roofline import expect
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable, rows_to_csv, to_markdown, to_text
from zbench.report.text.cells import digits, gib, trials
from zbench.space import Placed
from zbench.stats.stationary import LEAST
from zbench.sweeper.plan import Plan
from zbench.sweeper.progress import duration
from zbench.trial import Trial, geometry_of, is_forced
from zbench.workload import whole_cycles

HEADERS = ("#", "trial", "role", "expected image, s", "expected memory", "trial id")
ALIGNS = (RIGHT, LEFT, LEFT, RIGHT, RIGHT, LEFT)
LOAD_S = 10.0  # to start a worker, import and load: an allowance, part of the expected sweep time
STEP_MASKS = {
    8: {"slow": 1, "medium": 2, "fast": 3, "ultra": 4},
    9: {"slow": 1, "medium": 2, "fast": 3, "ultra": 4},
    50: {"slow": 12, "medium": 21, "fast": 30, "ultra": 36},
}
"""Steps that cache-dit's masks (`steps_mask`) skip, by the steps of an image that people use."""


@dataclass(frozen=True)
class PlannedTrial:
    """One line of a plan; expectations are None where the hardware's profile lacks the figures."""

    trial_id: str
    label: str
    role: str  # reference, baseline, both, or measured, projected or pruned
    expected_latency_s: float | None
    expected_peak_bytes: int | None
    reason: str | None = None


def plan_rows(plan: Plan) -> list[PlannedTrial]:
    """The trials of a plan in the order they run, then the pruned ones."""
    return [_row(plan, placed) for placed in plan.trials] + [
        PlannedTrial(placed.trial.trial_id, placed.trial.label, "pruned", None, None, reason)
        for placed, reason in plan.pruned
    ]


def expected_sweep_s(plan: Plan) -> float | None:
    """Wall time of the whole sweep; None where it cannot be said."""
    measure, total = plan.measure, LOAD_S
    runs: dict[str, tuple[Trial, HardwareConfig]] = {}
    for trial in (placed.trial for placed in plan.trials):
        if trial.hardware is None:
            runs[trial.trial_id] = trial, plan.profiles[trial.trial_id]
        else:  # trials that differ only in what is projected share one proxy
            assert plan.stand_in is not None
            proxy = plan.proxy_of(trial)
            runs[proxy.trial_id] = proxy, plan.stand_in.hardware
    for trial, hardware in runs.values():
        image_s = _expect(trial, hardware)[0]
        if image_s is None:
            return None
        cycle = len(trial.workload.prompts) * len(trial.workload.seeds)
        least, most = whole_cycles(measure.min_rounds, cycle), whole_cycles(measure.max_rounds, cycle)
        rounds = min(max(least, measure.budget_s / image_s), most)
        total += (min(LEAST, measure.max_warmup_rounds) + rounds) * image_s
    return total


def render_plan(plan: Plan, form: str) -> str:
    """`form` is table, markdown, csv or json."""
    rows = plan_rows(plan)
    seconds = expected_sweep_s(plan)
    if form == "json":
        data = {
            "sweep": plan.name,
            "run_folder": str(plan.run_folder),
            "expected_sweep_s": seconds,
            "trials": [vars(row) for row in rows],
            "notes": list(plan.notes),
        }
        return json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False)
    if form == "csv":
        return rows_to_csv([vars(row) for row in rows], [f.name for f in fields(PlannedTrial)])
    reasons = {reason: i for i, reason in enumerate(dict.fromkeys(row.reason for row in rows if row.reason), 1)}
    cells = tuple(_cells(number, row, reasons) for number, row in enumerate(rows, 1))
    counts = Counter(row.reason for row in rows)
    pruned = [f"[{i}] {trials(counts[reason])} pruned: {reason}" for reason, i in reasons.items()]
    table = TextTable((), HEADERS, ALIGNS, cells, (*pruned, *_legend(plan, seconds)))
    return to_markdown(table) if form == "markdown" else to_text(table)


def _row(plan: Plan, placed: Placed) -> PlannedTrial:
    trial = placed.trial
    kind = "measured" if trial.hardware is None else "projected"
    roles = [name for name, held in (("reference", placed.is_reference), ("baseline", placed.is_baseline)) if held]
    role = ", ".join(roles) or kind
    latency_s, peak_bytes = _expect(trial, trial.hardware or plan.profiles[trial.trial_id])
    return PlannedTrial(trial.trial_id, trial.label, role, latency_s, peak_bytes)


def _expect(trial: Trial, hardware: HardwareConfig) -> tuple[float | None, int | None]:
    try:
        expected = expect(trial, geometry_of(trial.pipeline), hardware, _forced_skips(trial))
    except ConfigError:
        return None, None
    return expected.latency_s, expected.peak_bytes


def _forced_skips(trial: Trial) -> int:
    cache = trial.cache
    if not isinstance(cache, SCMConfig) or not is_forced(cache):
        return 0
    return STEP_MASKS.get(trial.pipeline.steps, {}).get(cache.scm_preset, 0)


def _cells(number: int, row: PlannedTrial, reasons: Mapping[str, int]) -> tuple[str, ...]:
    latency = "—" if row.expected_latency_s is None else f"~{digits(row.expected_latency_s)}"
    peak = "—" if row.expected_peak_bytes is None else f"~{gib(row.expected_peak_bytes)}"
    role = row.role if row.reason is None else f"{row.role} [{reasons[row.reason]}]"
    return str(number), row.label, role, latency, peak, row.trial_id


def _legend(plan: Plan, seconds: float | None) -> tuple[str, ...]:
    time = "unknown" if seconds is None else f"about {duration(seconds)}"
    lines = [
        f"{plan.name}: {trials(len(plan.trials))}, {len(plan.pruned)} pruned; expected time {time}; nothing was run"
    ]
    lines += [f"note: {note}" for note in plan.notes]
    lines.append(
        "~ is a roofline's estimate: an order of magnitude on a CPU, and no step skipped where a threshold decides"
    )
    if any(isinstance(p.trial.cache, DBCacheConfig) for p in plan.trials) and any(
        p.trial.hardware for p in plan.trials
    ):
        lines.append("skipped steps and quality of projected trials will be measured on the tiny pipeline (proxy)")
    return tuple(lines)
