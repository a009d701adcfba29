"""A plan as a table: its trials in order, those pruned and why, and what time and memory to expect."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

from zbench.analysis.labels import told_apart
from zbench.methods.cache import method_of
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable, rows_to_csv, to_markdown, to_text
from zbench.report.text.cells import digits, gib_range, trials
from zbench.report.text.stacks import stacks_told
from zbench.report.text.turns import cost_expected
from zbench.sanitize import json_text
from zbench.search import UNFORESEEN
from zbench.space import Placed
from zbench.sweeper.expectation import expected_sweep_s, expected_trial, sweep_ends_s, turns_share
from zbench.sweeper.launches import Launches, launches
from zbench.sweeper.plan import Plan
from zbench.sweeper.progress import duration

HEADERS = ("#", "trial", "role", "expected image, s", "expected memory", "trial id")
ALIGNS = (RIGHT, LEFT, LEFT, RIGHT, RIGHT, LEFT)


@dataclass(frozen=True)
class PlannedTrial:
    """One line of a plan; expectations are None where the hardware's profile lacks the figures."""

    trial_id: str
    label: str
    role: str  # reference, baseline, both, or measured, projected or pruned
    expected_latency_s: float | None
    expected_peak_bytes: int | None
    reason: str | None = None
    expected_low_s: float | None = None  # it lies within these nine times in ten
    expected_high_s: float | None = None
    expected_peak_low: float | None = None  # the same, bytes
    expected_peak_high: float | None = None


def plan_rows(plan: Plan) -> list[PlannedTrial]:
    """The trials of a plan in the order they run, then the pruned ones."""
    reasons = dict(enumerate((reason for _, reason in plan.pruned), len(plan.trials)))
    every = [*plan.trials, *(placed for placed, _ in plan.pruned)]
    labels = told_apart(
        [placed.trial.label for placed in every],
        lambda index: every[index].trial,
        lambda index: every[index].trial.trial_id[:6],
    )
    return [_row(plan, placed, labels[i], reasons.get(i)) for i, placed in enumerate(every)]


def render_plan(plan: Plan, form: str) -> str:
    """`form` is table, markdown, csv or json."""
    rows = plan_rows(plan)
    if form == "json":
        data = {
            "sweep": plan.name,
            "run_folder": str(plan.run_folder),
            "expected_sweep_s": expected_sweep_s(plan),
            "most_trials": len(plan.trials) if plan.foresight is None else plan.foresight.most,
            "launches": [vars(each) for each in launches(plan)],
            "trials": [vars(row) for row in rows],
            "notes": list(plan.notes),
        }
        return json_text(json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False))
    if form == "csv":
        return rows_to_csv([vars(row) for row in rows], [f.name for f in fields(PlannedTrial)])
    reasons = {reason: i for i, reason in enumerate(dict.fromkeys(row.reason for row in rows if row.reason), 1)}
    cells = tuple(_cells(number, row, reasons) for number, row in enumerate(rows, 1))
    counts = Counter(row.reason for row in rows)
    pruned = [f"[{i}] {trials(counts[reason])} pruned: {reason}" for reason, i in reasons.items()]
    table = TextTable((), HEADERS, ALIGNS, cells, (*pruned, *_legend(plan)))
    return to_markdown(table) if form == "markdown" else to_text(table)


def _row(plan: Plan, placed: Placed, label: str, pruned: str | None) -> PlannedTrial:
    trial = placed.trial
    if pruned is not None:
        return PlannedTrial(trial.trial_id, label, "pruned", None, None, pruned)
    kind = "measured" if trial.hardware is None else "projected"
    roles = [name for name, held in (("reference", placed.is_reference), ("baseline", placed.is_baseline)) if held]
    role, expected = ", ".join(roles) or kind, expected_trial(plan, trial)
    if expected is None:
        return PlannedTrial(trial.trial_id, label, role, None, None)
    low, point, high = expected.latency
    return PlannedTrial(trial.trial_id, label, role, point, expected.peak_bytes, None, low, high, *expected.peak_ends)


def _cells(number: int, row: PlannedTrial, reasons: Mapping[str, int]) -> tuple[str, ...]:
    latency = "—" if row.expected_latency_s is None else f"~{digits(row.expected_latency_s)}"
    if row.expected_low_s is not None and row.expected_high_s is not None:
        latency += f" [{digits(row.expected_low_s)}, {digits(row.expected_high_s)}]"
    peak = "—"
    if row.expected_peak_bytes is not None:
        peak = f"~{gib_range(row.expected_peak_bytes, row.expected_peak_low, row.expected_peak_high)}"
    role = row.role if row.reason is None else f"{row.role} [{reasons[row.reason]}]"
    return str(number), row.label, role, latency, peak, row.trial_id


def _launches(of: Launches) -> str:
    """How often a server is started, and what that costs."""
    often = "1 launch" if of.count == 1 else f"{of.count} launches"
    basis = "as this run's launches took" if of.measured else "an allowance until this run has measured one"
    return f"{of.engine}: {often}, about {duration(of.each_s)} each until the first image ({basis})"


def _count(plan: Plan) -> str:
    """How many trials; of a search that decides on the way, what is known of that."""
    listed = trials(len(plan.trials))
    if plan.foresight is None or plan.lists_all:
        return listed
    if plan.foresight == UNFORESEEN:
        return f"{listed} to choose from, as the search decides"
    most, count = plan.foresight.most, len(plan.trials)
    if most is not None and most <= count:
        return f"{most} of these {listed}{'' if plan.foresight.is_exact else ' at most'}"
    return f"{listed}, and {'others' if most is None else f'up to {most - count} others'}, as the results decide"


def _time(plan: Plan) -> str:
    low_s, high_s = sweep_ends_s(plan)
    if low_s is not None and high_s is not None:
        return f"about {duration(high_s)}"
    if high_s is not None:
        return f"at most about {duration(high_s)}"
    return "unknown" if low_s is None else f"at least about {duration(low_s)}"


def _legend(plan: Plan) -> tuple[str, ...]:
    at_once = f", {plan.at_once} at a time" if plan.at_once > 1 else ""
    expected = f"expected time {_time(plan)}{at_once}"
    lines = [f"{plan.name}: {_count(plan)}, {len(plan.pruned)} pruned; {expected}; nothing was run"]
    lines += [_launches(each) for each in launches(plan)]
    lines += [] if (turns := cost_expected(turns_share(plan))) is None else [turns]
    lines += [f"note: {note}" for note in plan.notes]
    if any(expected_trial(plan, placed.trial) is not None for placed in plan.trials):
        on_cpu = any(p.trial.hardware is None and p.trial.compute.device == "cpu" for p in plan.trials)
        rough = ": an order of magnitude on a CPU, its memory without that of Python and PyTorch" if on_cpu else ""
        skipped = "no step is skipped where a threshold decides"
        lines.append(f"~ is a roofline's estimate, 9 in 10 within the brackets{rough}; in it {skipped}")
    lines += stacks_told([placed.trial for placed in plan.trials])
    if any(p.trial.pipeline.lora is not None and not p.trial.pipeline.lora_fused for p in plan.trials):
        lines.append("what a LoRA that is not fused costs is not in it: such trials take longer")
    if any(method_of(p.trial.cache).skips for p in plan.trials) and any(p.trial.hardware for p in plan.trials):
        lines.append("skipped steps and quality of projected trials will be measured on the tiny pipeline (proxy)")
    return tuple(lines)
