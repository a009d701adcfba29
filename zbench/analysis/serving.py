"""What a load shows: latencies, throughput, queueing, goodput, and when its images came, from the raw requests.

Figures that SGLang's `bench_serving` has are its own: a latency is from sent to done, of every request that brought an
image, and percentiles are numpy's. A response is from due to done, so no waiting is left out of it. It formats nothing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from zbench.measurement import Measurement, Request, Window
from zbench.measurement.lone import waited_s
from zbench.stats import median, quantile

OBJECTIVE_SHARE = 0.95
"""An objective is met where this quantile of the responses is within it."""

MEBI = 2**20
"""SGLang prints torch's bytes over this and calls them MB."""


@dataclass(frozen=True)
class ServingFigures:
    """Of one window of load. Times are seconds, rates a second; None: there is nothing to say it of."""

    duration_s: float  # from the window's start to its last answer
    last_due_s: float  # from the window's start until no further request was due
    completed_requests: int
    completed_outputs: int  # images
    failed_requests: int
    outputs_per_prompt: int
    latencies_s: tuple[float, ...]  # from sent to done, of those completed
    responses_s: tuple[float, ...]  # from due to done, of the same
    queued_s: tuple[float, ...]  # from due to begun, of those of which that is known
    services_s: tuple[float, ...]  # what the calls themselves took without waiting, where that is known
    first_done_s: float  # after the window's start
    intervals_s: tuple[float, ...]  # between one image and the next, in the order in which they came
    peak_memory_mb: tuple[float, ...]  # of each request as its server said, or of the window
    objective_s: float | None
    failures: tuple[tuple[str, int], ...]  # code and how many, the commonest first

    @property
    def requests(self) -> int:
        """Of all kinds."""
        return self.completed_requests + self.failed_requests

    @property
    def requests_per_s(self) -> float:
        """Completed ones over the duration."""
        return self.completed_requests / self.duration_s

    @property
    def outputs_per_s(self) -> float:
        """Images over the duration."""
        return self.completed_outputs / self.duration_s

    @property
    def latency_mean_s(self) -> float:
        """Of those completed."""
        return mean(self.latencies_s)

    def latency_s(self, q: float) -> float:
        """A quantile."""
        return quantile(self.latencies_s, q)

    def response_s(self, q: float) -> float | None:
        """A quantile over all requests; a failed one counts as one that is never done. None where it falls on such."""
        return _with_unending(self.responses_s, self.failed_requests, q)

    @property
    def within_objective(self) -> int | None:
        """Requests that were done in time; None without an objective."""
        return None if self.objective_s is None else sum(s <= self.objective_s for s in self.responses_s)

    @property
    def goodput_per_s(self) -> float | None:
        """Requests done in time, over the duration."""
        return None if self.within_objective is None else self.within_objective / self.duration_s

    @property
    def meets_objective(self) -> bool | None:
        """Whether OBJECTIVE_SHARE of all requests are done in time; None without an objective."""
        if self.objective_s is None:
            return None
        response_s = self.response_s(OBJECTIVE_SHARE)
        return response_s is not None and response_s <= self.objective_s

    @property
    def is_burst(self) -> bool:
        """Whether a third of the duration or more came after the last request was due.

        Then the queue had no time to grow as long as the rate would make it, and responses tell little of a rate.
        """
        return self.duration_s - self.last_due_s >= self.duration_s / 3

    @property
    def steady_s(self) -> float | None:
        """Seconds from one image to the next once they come: the median interval. None for fewer than three images."""
        return median(self.intervals_s) if len(self.intervals_s) > 1 else None


def serving_figures(measurement: Measurement) -> ServingFigures | None:
    """Of a window of load; None where requests came one after another, or were projected."""
    window = measurement.window
    completed = measurement.requests
    duration_s = window.wall_s
    if window.arrivals.kind == "sequential" or measurement.projection is not None or not completed or not duration_s:
        return None
    ends_s = sorted(r.done_s for r in completed)
    return ServingFigures(
        duration_s=duration_s,
        last_due_s=max([*(r.due_s for r in completed), *(f.due_s for f in window.failures)]),
        completed_requests=len(completed),
        completed_outputs=sum(r.images for r in completed),
        failed_requests=len(window.failures),
        outputs_per_prompt=max(r.images for r in completed),
        latencies_s=tuple(r.latency_s for r in completed),
        responses_s=tuple(r.done_s - r.due_s for r in completed),
        queued_s=tuple(s for r in completed if (s := window.queued_s(r)) is not None),
        services_s=tuple(s for r in completed if (s := _service_s(r, window)) is not None),
        first_done_s=ends_s[0],
        intervals_s=tuple(later - former for former, later in pairwise(ends_s)),
        peak_memory_mb=_peaks_mb(measurement),
        objective_s=window.arrivals.objective_s,
        failures=tuple(Counter(failed.code for failed in window.failures).most_common()),
    )


def mean(values: Sequence[float]) -> float:
    """Of some values."""
    return math.fsum(values) / len(values)


def _service_s(request: Request, window: Window) -> float | None:
    """The call's own time; of a server all of the latency that is no waiting."""
    if request.server_s is None or window.arrivals.at_once is not None:
        return request.server_s
    waited = waited_s(request, window.lone)
    return None if waited is None else request.latency_s - waited


def _peaks_mb(measurement: Measurement) -> tuple[float, ...]:
    """As the server said of each request; where the pipeline is the worker's own, what torch reserved in the window."""
    told = [r.server_peak_bytes for r in measurement.requests if r.server_peak_bytes]
    own = measurement.memory.peak_reserved_bytes
    return tuple(size / MEBI for size in told or ([own] if own else []))


def _with_unending(values: Sequence[float], unending: int, q: float) -> float | None:
    """A quantile of some values and of so many that are larger than any."""
    ordered = sorted(values)
    position = q * (len(ordered) + unending - 1)
    if math.ceil(position) >= len(ordered):
        return None
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    return low + (high - low) * (position - math.floor(position))
