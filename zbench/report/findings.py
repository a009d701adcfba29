"""What the figures say, in a paragraph computed from them; refuses any sentence that no figure backs."""

from collections.abc import Sequence

from zbench.report import cells
from zbench.report.summary import NOT_VALIDATED, TrialSummary

GOOD_SSIM = 0.95


def findings(trials: Sequence[TrialSummary]) -> list[str]:
    """Sentences, the most useful first. Trials of several baselines are judged against their own."""
    complete = [row for row in trials if row.state == "COMPLETE" and row.latency_median_s is not None]
    compared = [row for row in complete if not row.is_baseline and row.speedup is not None]
    others = [row for row in compared if row.is_trusted]
    if not complete:
        return ["No trial was completed, so there is nothing to compare.", *_failed(trials)]
    weak = any(row.source in ("proxy", "projected") for row in complete)
    sentences = [f"These figures are {NOT_VALIDATED}."] if weak else []
    sentences += [_baseline(row) for row in complete if row.is_baseline][:3]
    sentences += _best_of_good(others)
    fastest = max(others, key=lambda row: row.speedup or 0, default=None)
    if fastest is not None and not _good(fastest):
        sentences.append(f"Fastest of all is {_what(fastest)}{_likeness(fastest)}{_skipping(fastest)}.")
    sentences += _never_skipped(others)
    return sentences + _distrusted(len(compared) - len(others), len(compared)) + _failed(trials)


def default_row(trials: Sequence[TrialSummary]) -> TrialSummary | None:
    """The trial with cache-dit's own defaults, if it was completed."""
    return next((row for row in trials if row.label == "F1B0_W4_MC3_R0.24" and row.state == "COMPLETE"), None)


def _baseline(row: TrialSummary) -> str:
    projected = row.latency_source == "projected"
    verb = "is projected to take" if projected else "takes"
    name = "The baseline" if row.label == "none" else f"The baseline {row.label}"
    return f"{name} {verb} {cells.digits(row.latency_median_s or 0)} s an image."


def _best_of_good(others: Sequence[TrialSummary]) -> list[str]:
    good = [row for row in others if _good(row) and (row.speedup or 0) > 1]
    if not others or all(row.ssim_worst is None for row in others):
        return []
    best = max(good, key=lambda row: row.speedup or 0, default=None)
    if best is None:
        return [f"No setting is faster than it while every image keeps an SSIM of at least {GOOD_SSIM}."]
    text = (
        f"Of the settings whose every image keeps an SSIM of at least {GOOD_SSIM}, "
        f"{_what(best)} is the fastest{_likeness(best)}{_skipping(best)}"
    )
    near = [
        row.label
        for row in good
        if row is not best and (row.latency_low_s or row.latency_median_s or 0) <= (best.latency_high_s or 0)
    ]
    tied = f"; {_list(near)} cannot be told from it (the intervals overlap)" if near else ""
    return [f"{text}{tied}."]


def _never_skipped(others: Sequence[TrialSummary]) -> list[str]:
    idle = [row.label for row in others if row.cached_steps == 0 and not row.label.startswith("none")]
    if not idle:
        return []
    return [f"{_list(idle)} skipped no step, so nothing is gained there."]


def _distrusted(number: int, of: int) -> list[str]:
    if not number:
        return []
    which = "None of the other trials" if number == of else f"{of - number} of {of} other trials"
    verb = "is" if number == of or of - number == 1 else "are"
    return [f"{which} {verb} to be trusted; {cells.UNTRUSTED_MARK} in the table marks the rest and says why."]


def _failed(trials: Sequence[TrialSummary]) -> list[str]:
    failed = sum(row.state == "FAILED" for row in trials)
    return [f"{failed} {'trial' if failed == 1 else 'trials'} failed; see below."] if failed else []


def _what(row: TrialSummary) -> str:
    projected = "projected " if row.latency_source == "projected" else ""
    return f"{row.label} ({projected}{row.speedup:.2f}×, {cells.digits(row.latency_median_s or 0)} s)"


def _likeness(row: TrialSummary) -> str:
    if row.is_identical:
        return ", with images identical to the baseline's"
    if row.ssim_worst is None or row.ssim_mean is None:
        return ""
    return f", at SSIM {cells.likeness(row.ssim_mean)} (worst image {cells.likeness(row.ssim_worst)})"


def _skipping(row: TrialSummary) -> str:
    return "" if not row.cached_steps else f", skipping {row.cached_steps:.1f} of {row.steps} steps"


def _good(row: TrialSummary) -> bool:
    return row.ssim_worst is not None and row.ssim_worst >= GOOD_SSIM


def _list(labels: Sequence[str]) -> str:
    shown = list(labels[:4])
    if len(labels) > len(shown):
        return f"{', '.join(shown)} and {len(labels) - len(shown)} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
