"""The grammar of gates, `latency.median:3%`: a metric of the registry and how far it may get worse; it judges nothing.

A limit in per cent is relative; a plain number is absolute, its sign saying which way is worse: `quality.ssim:-0.01`
lets it fall by 0.01.
"""

import re
from dataclasses import dataclass

from zbench.analysis.metrics import GATED, Metric
from zbench.errors import ConfigError

ALSO_CALLED = {"prompt_fidelity": "quality.prompt", "energy": "energy.per_image", "latency": "latency.median"}
"""Names that people type, and the metric each is."""


@dataclass(frozen=True)
class Limit:
    """One metric that is compared, and how far it may get worse."""

    metric: Metric
    margin: float  # above 0: a share if relative, else in the metric's own unit
    relative: bool

    def __str__(self) -> str:
        """As it is written: `latency.median:3%`."""
        if self.relative:
            return f"{self.metric.name}:{100 * self.margin:g}%"
        return f"{self.metric.name}:{'-' if self.metric.higher_is_better else ''}{self.margin:g}"


def parse_limit(text: str) -> Limit:
    """A limit as a user writes it. Raises ConfigError naming what is wrong and what there is."""
    name, _, limit = text.partition(":")
    found = re.fullmatch(r"(-?[0-9]+(?:\.[0-9]+)?)(%?)", limit)
    if found is None or float(found[1]) == 0:
        raise ConfigError("--metric", text, "must be NAME:LIMIT, such as latency.median:3% or quality.ssim:-0.01")
    name = ALSO_CALLED.get(name, name)
    if name not in GATED:
        raise ConfigError("--metric", text, f"there is no metric {name!r}; there are: {', '.join(GATED)}")
    metric, value, relative = GATED[name], float(found[1]), bool(found[2])
    if relative and abs(value) >= 100:
        raise ConfigError("--metric", text, "a limit in per cent lies below 100")
    falls = metric.higher_is_better
    if (value < 0) != (falls and not relative):
        way = f"worse is less, so its limit is {-abs(value):g}" if falls else "worse is more, so its limit is above 0"
        raise ConfigError("--metric", text, "a limit in per cent is above 0" if relative else f"of {name} {way}")
    return Limit(metric, abs(value) / 100 if relative else abs(value), relative)
