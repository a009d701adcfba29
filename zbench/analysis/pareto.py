"""The trials that no other beats in speed-up and likeness at once; it refuses those that are not to be trusted."""

from collections.abc import Sequence

from zbench.analysis.figures import TrialFigures
from zbench.stats import pareto_front


def likeness_and_speedup(row: TrialFigures) -> tuple[float, float] | None:
    """SSIM of the worst image (1 of a reference, which the others are likened to) and speed-up; None without both."""
    ssim = 1.0 if row.ssim_worst is None and row.is_reference else row.ssim_worst
    return None if ssim is None or row.speedup is None else (ssim, row.speedup)


def likeness(row: TrialFigures) -> tuple[float, float] | None:
    """SSIM of the worst image and the mean; those of a reference are its own. None where it has none."""
    if row.is_reference and row.state == "COMPLETE":
        return 1.0, 1.0
    return None if row.ssim_worst is None or row.ssim_mean is None else (row.ssim_worst, row.ssim_mean)


def front(trials: Sequence[TrialFigures]) -> list[TrialFigures]:
    """Of the trusted trials that have both, those no other dominates, the least alike first."""
    known = [(row, point) for row in trials if row.is_trusted and (point := likeness_and_speedup(row)) is not None]
    return [known[i][0] for i in pareto_front([point for _, point in known])]
