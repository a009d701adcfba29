"""What the figures say, in a paragraph computed from them; refuses any sentence that no figure backs."""

from collections import Counter
from collections.abc import Sequence

from zbench.analysis.figures import NOT_VALIDATED, TrialFigures
from zbench.measurement import QUALITY_ONLY
from zbench.report.text import cells

GOOD_SSIM = 0.95
TELLING_SHARE = 0.02  # of a prompt's attributes; a smaller loss is not worth a sentence
MOST_BASELINES = 3


def findings(trials: Sequence[TrialFigures]) -> list[str]:
    """Sentences, the most useful first. Trials of several baselines are judged against their own."""
    complete = [row for row in trials if row.state == "COMPLETE" and row.latency_median_s is not None]
    if not complete:
        untimed = any(row.is_untimed for row in trials)
        why = f"timed: images alone were asked for ({QUALITY_ONLY})" if untimed else "completed"
        return [f"No trial was {why}, so there is no speed to compare.", *_failed(trials)]
    weak = any(row.source in ("proxy", "projected") for row in complete)
    sentences = [f"These figures are {NOT_VALIDATED}."] if weak else []
    baselines = [row for row in complete if row.is_baseline]
    for baseline in baselines[:MOST_BASELINES]:
        sentences += _against(baseline, complete, alone=len(baselines) == 1)
    if len(baselines) > MOST_BASELINES:
        more = len(baselines) - MOST_BASELINES
        sentences.append(f"{more} more {'baseline is' if more == 1 else 'baselines are'} in the table.")
    compared = [row for row in complete if not row.is_baseline and row.speedup is not None]
    doubted = sum(bool(row.doubts) for row in compared)
    return sentences + _misfits(complete) + _distrusted(doubted, len(compared)) + _failed(trials)


def default_row(trials: Sequence[TrialFigures]) -> TrialFigures | None:
    """The trial with cache-dit's own defaults, if it was completed."""
    return next((row for row in trials if row.has_default_cache and row.state == "COMPLETE"), None)


def _against(baseline: TrialFigures, complete: Sequence[TrialFigures], *, alone: bool) -> list[str]:
    """What is to be said of one baseline and the trials compared with it."""
    key, reference_key = (baseline.sweep, baseline.baseline_id), (baseline.sweep, baseline.reference_id)
    reference = next((row for row in complete if (row.sweep, row.trial_id) == reference_key), None)
    others = [
        row
        for row in complete
        if (row.sweep, row.baseline_id) == key and not row.is_baseline and row.speedup is not None and row.is_trusted
    ]
    sentences = [_baseline(baseline, alone), *_fastest(others, reference, alone=alone)]
    return sentences + _costs_prompt(reference, others) + _never_skipped(others)


def _baseline(row: TrialFigures, alone: bool) -> str:
    verb = "is projected to take" if row.latency_source == "projected" else "takes"
    name = "The baseline" if alone else f"The baseline {row.label}"
    doubt = f", which is not to be trusted ({cells.UNTRUSTED_MARK} in the table says why)" if row.doubts else ""
    median_s = row.latency_median_s or 0.0
    return f"{name} {verb} {cells.digits(median_s)}{cells.ends(row, median_s)} s {cells.for_images(row)}{doubt}."


def _fastest(others: Sequence[TrialFigures], reference: TrialFigures | None, *, alone: bool) -> list[str]:
    """The fastest whose images are good, and the fastest of all; nothing slower than the baseline is called so."""
    if not others:
        return []
    faster = sorted((row for row in others if row.is_faster), key=lambda row: -(row.speedup or 0))
    if not faster:
        return ["The one other trial is no faster." if len(others) == 1 else "None of the other trials is faster."]
    sentences = _best_of_good(faster, others, reference)
    if not _good(faster[0]):
        of = "all" if alone else "those compared with it"
        sentences.append(f"Fastest of {of} is {_what(faster[0])}{_likeness(faster[0])}{_skipping(faster[0])}.")
    return sentences


def _best_of_good(
    faster: Sequence[TrialFigures], others: Sequence[TrialFigures], reference: TrialFigures | None
) -> list[str]:
    if all(row.ssim_worst is None for row in others):
        return []
    good = [row for row in faster if _good(row)]
    if not good:
        return [f"No setting is faster than it while every image keeps an SSIM of at least {GOOD_SSIM}."]
    best = good[0]
    text = (
        f"Of the settings whose every image keeps an SSIM of at least {GOOD_SSIM}, "
        f"{_what(best)} is the fastest{_likeness(best)}{_skipping(best)}{_showing(best, reference)}"
    )
    near = [row.label for row in good if row is not best and _as_fast(row, best)]
    tied = f"; {cells.listed(near)} cannot be told from it (the intervals overlap)" if near else ""
    return [f"{text}{tied}."]


def _as_fast(row: TrialFigures, best: TrialFigures) -> bool:
    """Whether it cannot be told from the fastest."""
    if row.projected_speedup_low is not None and best.projected_speedup_low is not None:
        return row.may_equal(best)
    return (row.latency_low_s or row.latency_median_s or 0) <= (best.latency_high_s or 0)


def _never_skipped(others: Sequence[TrialFigures]) -> list[str]:
    idle = [row.label for row in others if row.cached_steps == 0 and row.family != "none"]
    if not idle:
        return []
    return [f"{cells.listed(idle)} skipped no step; “Knobs without effect” says why."]


def _costs_prompt(reference: TrialFigures | None, others: Sequence[TrialFigures]) -> list[str]:
    """The trial whose images show least of what was asked for, if that is clearly less than the reference's do."""
    shares = [(row.prompt_fidelity_mean, row.label) for row in others if row.prompt_fidelity_mean is not None]
    if not shares or reference is None or reference.prompt_fidelity_mean is None:
        return []
    least, label = min(shares)
    if least > reference.prompt_fidelity_mean - TELLING_SHARE + 1e-9:
        return []
    of_reference = cells.percent(reference.prompt_fidelity_mean)
    return [f"{label} shows {cells.percent(least)} of what the prompts ask for, the reference {of_reference}."]


def _misfits(complete: Sequence[TrialFigures]) -> list[str]:
    found = Counter((row.hardware, row.hardware_memory_gib) for row in complete if row.misfit is not None)
    return [
        f"{number} of {cells.trials(len(complete))} {'does' if number == 1 else 'do'} not fit into the "
        f"{memory_gib:g} GiB of {hardware or 'their cap'}."
        for (hardware, memory_gib), number in found.items()
    ]


def _distrusted(number: int, of: int) -> list[str]:
    if not number:
        return []
    which = "None of the other trials" if number == of else f"{of - number} of {of} other trials"
    verb = "is" if number == of or of - number == 1 else "are"
    return [f"{which} {verb} to be trusted; {cells.UNTRUSTED_MARK} in the table marks the rest and says why."]


def _failed(trials: Sequence[TrialFigures]) -> list[str]:
    failed = [row for row in trials if row.state == "FAILED"]
    said = [f"No image is judged against {row.label}: this reference failed." for row in failed if row.is_reference]
    said += [f"No speed-up is over {row.label}: this baseline failed." for row in failed if row.is_baseline]
    return said + ([f"{cells.trials(len(failed))} failed; see below."] if failed else [])


def _what(row: TrialFigures) -> str:
    projected = "projected " if row.latency_source == "projected" else ""
    median_s = row.latency_median_s or 0.0
    return f"{row.label} ({projected}{row.speedup:.2f}×, {cells.digits(median_s)}{cells.ends(row, median_s)} s)"


def _likeness(row: TrialFigures) -> str:
    if row.is_reference:
        return ", the quality reference itself"
    if row.is_identical:
        return ", with images identical to the reference's"
    if row.within_noise:
        return ", with images that differ from the reference's by no more than noise"
    if row.ssim_worst is None or row.ssim_mean is None:
        return ""
    return f", at SSIM {cells.likeness(row.ssim_mean)} (worst image {cells.likeness(row.ssim_worst)})"


def _skipping(row: TrialFigures) -> str:
    return "" if not row.cached_steps else f", skipping {row.cached_steps:.1f} of {row.steps} steps"


def _showing(row: TrialFigures, reference: TrialFigures | None) -> str:
    """What a trial loses of its prompts, however little; "" where it loses nothing or nobody looked."""
    share, of_reference = row.prompt_fidelity_mean, reference.prompt_fidelity_mean if reference is not None else None
    if share is None or of_reference is None or share > of_reference - 1e-9:
        return ""
    shown, full = cells.percent(share, 1), cells.percent(of_reference)
    return f", showing {shown} of what the prompts ask for (the reference {full})"


def _good(row: TrialFigures) -> bool:
    return row.is_reference or row.is_unchanged or (row.ssim_worst is not None and row.ssim_worst >= GOOD_SSIM)
