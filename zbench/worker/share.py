"""What one trial has of a window while it is measured: its requests, its first images, and how it warmed up."""

from dataclasses import dataclass, field

from zbench.measurement import ClockCheck, Effective, Request
from zbench.quality.artifacts import Artifact
from zbench.worker.cross_checks import Check
from zbench.worker.job import TrialJob
from zbench.worker.warm_up import WarmUp


@dataclass
class Share:
    """What one trial has of the window."""

    job: TrialJob
    warm: WarmUp
    effective: Effective
    requests: list[Request] = field(default_factory=list)
    first_cycle: list[Artifact] = field(default_factory=list)
    second_cycle: list[Artifact] = field(default_factory=list)  # of a quality reference: the same images once more
    clock: Check[ClockCheck] = field(default_factory=Check)  # of the first request
    stop_reason: str = ""
    has_spoilt_lone: bool = False  # among the requests that a server had to itself
    was_suspended: bool = False  # during one of its requests
    turns_s: float = 0.0  # what its turns took so far

    @property
    def shortest_s(self) -> float | None:
        """Its shortest round so far, warm-up included; None before any."""
        return min((*self.warm.latencies_s, *(r.latency_s for r in self.requests)), default=None)

    @property
    def is_spoilt(self) -> bool:
        """Whether any call made images that are none: the trial has failed, and more requests would only say so."""
        return bool(self.warm.spoilt) or self.has_spoilt_lone or any(r.has_spoilt_images for r in self.requests)
