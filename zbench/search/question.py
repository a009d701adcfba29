"""What a sweep asks, as a few digits: which of these trials, by which search. Equal questions have equal names.

How many trials a search takes, and where else they are kept, is no part of it.
"""

import hashlib

from zbench.config import SearchConfig
from zbench.space import Space

EVERY_POINT = "zbench.search.grid:GridSearch"
"""The search that takes all of a space, and so is no part of what is asked."""


ASKS_NOTHING_OF_ITS_OWN = "zbench.search.tune.search:TuneSearch"
"""Its options say what is feasible and when it ends: each of its records serves other limits as well."""


def question(space: Space, search: SearchConfig, reference_weights: str | None = None) -> str:
    """8 hex digits of the trials, the search and its seed, and of the weights whose images they are judged against."""
    words = sorted(placed.trial.trial_id for placed in space.placed)
    words += [] if reference_weights is None else [f"reference_weights={reference_weights}"]
    if search.target == ASKS_NOTHING_OF_ITS_OWN:
        words += [search.name, search.target]
    elif search.target != EVERY_POINT:
        words += [search.name, search.target, str(search.seed)]
        words += [f"{key}={value}" for key, value in sorted(search.options.items())]
    return hashlib.sha256("".join(words).encode()).hexdigest()[:8]
