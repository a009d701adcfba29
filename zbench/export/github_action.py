"""The list that github-action-benchmark reads with `tool: customSmallerIsBetter`."""

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import View
from zbench.export.figures import measured_trials, memory_measure, to_json
from zbench.report.text.cells import ABSENT, cold


def to_github_action(view: View) -> str:
    """Two entries a trial: its latency under its label, and its peak memory under the label and what it is.

    The format (github.com/benchmark-action/github-action-benchmark): a list of `{name, unit, value}`, and optionally
    `range`, which the action parses as "± NUMBER" in the unit, and `extra`, text shown with the point. It follows a
    benchmark by its name. `range` is the larger half of the median's 95 % interval. Images' likeness is bigger the
    better, so it stands in `extra` and not in a series of its own.
    """
    rows = measured_trials(view, "github-action-benchmark").trials
    return to_json([entry for row in rows for entry in _entries(row)])


def _entries(row: TrialFigures) -> list[dict[str, object]]:
    extra = _extra(row)
    latency: dict[str, object] = {"name": row.label, "unit": "s", "value": row.latency_median_s}
    if row.latency_median_s is not None and row.latency_low_s is not None and row.latency_high_s is not None:
        half = max(row.latency_high_s - row.latency_median_s, row.latency_median_s - row.latency_low_s)
        latency["range"] = f"± {half:.6f}"
    entries = [{**latency, "extra": extra}]
    if row.peak_memory_bytes is not None:
        name = f"{row.label} {memory_measure(row, ' ')}"
        entries.append({"name": name, "unit": "bytes", "value": row.peak_memory_bytes, "extra": extra})
    return entries


def _extra(row: TrialFigures) -> str:
    """One line a fact."""
    facts = [f"sweep {row.sweep}, trial {row.trial_id}", f"{row.rounds} rounds"]
    if cold(row) != ABSENT:
        facts.append(f"cold, load + first request: {cold(row)} s")
    if row.speedup is not None and not row.is_baseline:
        facts.append(f"speed-up {row.speedup:.3f}×")
    if row.cached_steps is not None and row.steps is not None:
        facts.append(f"cached steps {row.cached_steps:.2f} of {row.steps}")
    if row.ssim_worst is not None:
        facts.append(f"worst SSIM {row.ssim_worst:.4f}")
    if row.psnr_worst_db is not None:
        facts.append(f"worst PSNR {row.psnr_worst_db:.2f} dB")
    facts += [f"caveat: {caveat}" for caveat in row.caveats]
    return "\n".join(facts)
