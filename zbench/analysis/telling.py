"""Of very many trials those that a page can show: references and baselines, the Pareto front, then the fastest."""

from collections.abc import Sequence

from zbench.analysis.figures import TrialFigures
from zbench.analysis.pareto import front

MOST_WHOLE = 100
"""So many trials are all shown."""
SHOWN = 40
"""Of more."""
MOST_ROLES = 10
"""Of them references and baselines."""


def telling(complete: Sequence[TrialFigures]) -> tuple[TrialFigures, ...]:
    """All of them up to MOST_WHOLE, else SHOWN, in their order; what is not to be trusted gives way to the rest."""
    if len(complete) <= MOST_WHOLE:
        return tuple(complete)
    roles = [row for row in complete if row.is_reference or row.is_baseline][:MOST_ROLES]
    fastest = sorted(complete, key=lambda row: (not row.is_trusted, -(row.speedup or 0.0)))
    chosen = dict.fromkeys(row.key for row in [*roles, *reversed(front(complete)), *fastest])
    keys = set(list(chosen)[:SHOWN])
    return tuple(row for row in complete if row.key in keys)


def shown_of_all(shown: Sequence[TrialFigures], complete: Sequence[TrialFigures]) -> tuple[str, ...]:
    """A line that says how many of how many; none where nothing is left out."""
    if len(shown) == len(complete):
        return ()
    return (
        f"Showing {len(shown)} of {len(complete):,} trials: references and baselines, the Pareto front of speed-up and "
        "SSIM, then the fastest; all are in summary.csv, which zbench report writes.",
    )
