"""What a configuration may be chosen for: the figure of each objective, which way is better, and what a trial costs.

Searches, `tune` and `recommend` name the same objectives by this table. It knows no limits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from zbench.analysis.figures import TrialFigures
from zbench.analysis.pareto import likeness

Objective = Literal["latency", "throughput", "energy"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
"""What a configuration is recommended for: the quickest image, the most images a second, the fewest joules an image."""

QUALITY = "quality"
"""What a search may be after too: the SSIM of the worst image."""


@dataclass(frozen=True)
class Aim:
    """An objective: its figure, and the path under which a measurement says why there is none."""

    read: Callable[[TrialFigures], float | None]
    more_is_better: bool
    path: str


def image_latency_s(row: TrialFigures) -> float | None:
    """Of an image: a call may make several. Replicas side by side make none of them sooner."""
    return None if row.latency_median_s is None else row.latency_median_s * row.dp_size / row.images


def _likeness(row: TrialFigures) -> float | None:
    """SSIM of the worst image; 1 of a reference."""
    found = likeness(row)
    return None if found is None else found[0]


AIMS: dict[str, Aim] = {
    "latency": Aim(image_latency_s, False, "latency"),
    "throughput": Aim(lambda row: row.images_per_s, True, "latency"),
    "energy": Aim(lambda row: row.joules_an_image, False, "energy"),
    QUALITY: Aim(_likeness, True, "quality"),
}
"""By the name that is typed."""


def cost(objective: Objective, row: TrialFigures, baseline: TrialFigures | None = None) -> float:
    """What an image costs, lower is better: seconds, or joules; infinite where there is no figure.

    Latency is the baseline's over the speed-up, where both are known: requests that took turns tell more than two
    medians.
    """
    aim = AIMS[objective]
    value = aim.read(row)
    of_baseline = None if baseline is None else baseline.latency_median_s
    if objective == "latency" and row.speedup and of_baseline and row.dp_size == 1:
        value = of_baseline / row.speedup / row.images
    if value is None or value <= 0:
        return math.inf
    return 1 / value if aim.more_is_better else value
