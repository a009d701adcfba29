"""How much of a lone request a server's own time leaves out, from raw samples; it formats nothing.

Example: the client sees 1.31 s and the server says 0.89 s, so 0.42 s or 32 % lie outside.
"""

from dataclasses import dataclass

from zbench.measurement import Measurement
from zbench.stats import median


@dataclass(frozen=True)
class OutsideTime:
    """Medians over a trial's lone requests, in seconds."""

    server_s: float  # as the server said
    latency_s: float  # as its client saw it
    seconds: float  # what is between them

    @property
    def share(self) -> float:
        """Of the latency."""
        return self.seconds / self.latency_s if self.latency_s > 0 else 0.0


def outside_time(measurement: Measurement) -> OutsideTime | None:
    """One after another every request is a lone one; of a load they were made apart. None where no server tells."""
    window = measurement.window
    if window.arrivals.kind == "sequential":
        samples = [(r.latency_s, r.server_s) for r in measurement.requests if r.valid and r.server_s is not None]
    else:
        samples = [(lone.latency_s, lone.server_s) for lone in window.lone if not lone.invalid_reasons]
    if not samples:
        return None
    seconds = median([max(0.0, latency_s - server_s) for latency_s, server_s in samples])
    return OutsideTime(median([s for _, s in samples]), median([s for s, _ in samples]), seconds)
