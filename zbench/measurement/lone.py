"""Requests that a server had to itself before or after a load: what of a latency is no waiting.

Example: a lone request takes its client 1.31 s, and the server says 0.89 s. The other 0.42 s (a picture is encoded and
carried, or the server's clock does not wait for its GPU) are in every request under load, and are no queueing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zbench.decode import Seconds, Whole
from zbench.stats import median

if TYPE_CHECKING:
    from zbench.measurement import Request


@dataclass(frozen=True)
class LoneRequest:
    """One untimed request to a warm server that had no other."""

    prompt_id: str
    seed: Whole
    latency_s: Seconds  # as its client saw it
    server_s: Seconds  # as the server said
    stands_for: list[str] = field(default_factory=list)  # prompts of its size and steps; empty: all
    invalid_reasons: list[str] = field(default_factory=list)  # why its images are none

    @property
    def outside_s(self) -> float:
        """What the server's own time leaves out of it."""
        return max(0.0, self.latency_s - self.server_s)


def outside_s(lone: Sequence[LoneRequest], prompt_id: str) -> float | None:
    """What a server's time leaves out of a request of this prompt with nothing queued; None where nobody looked."""
    valid = [each for each in lone if not each.invalid_reasons]
    alike = [each.outside_s for each in valid if not each.stands_for or prompt_id in each.stands_for]
    return median(alike) if alike else None


def waited_s(request: "Request", lone: Sequence[LoneRequest]) -> float | None:
    """How long a server let a request wait: its latency without the server's own time and what that leaves out."""
    outside = outside_s(lone, request.prompt_id)
    if request.server_s is None or outside is None:
        return None
    return max(0.0, request.latency_s - request.server_s - outside)
