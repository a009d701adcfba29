"""What of a trial's forwards is communication: by one call more under a profiler, once its window is over."""

from dataclasses import dataclass, field, replace

from zbench.engines import Engine, Profiled
from zbench.measurement import Communication, Effective, Measurement
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial
from zbench.workload import Pair

PROFILE_FAILED = "profile_failed"
"""Why nothing is known of the communication: the call under the profiler failed, or did not end."""


@dataclass(frozen=True)
class Profile:
    """`Measurement.communication`; where it is empty, the reason why."""

    of_ranks: list[Communication] = field(default_factory=list)
    reason: str | None = None

    def within(self, measurement: Measurement) -> Measurement:
        """The measurement that this is a part of."""
        said = {} if self.reason is None else {"communication": self.reason}
        return replace(measurement, communication=self.of_ranks, reasons=measurement.reasons | said)


def why_not_profiled(trial: Trial, effective: Effective) -> str | None:
    """Why there is nothing to profile, or None.

    `one_device`: each of its images is made on one. `gloo`: ranks on CPUs talk over it, and no kernel would show that.
    """
    if ParallelDims.of(trial.parallel).ranks == 1:
        return "one_device"
    return "gloo" if (effective.device or "cpu").startswith("cpu") else None


def profile_of(engine: Engine, pair: Pair) -> Profile:
    """Of the trial that the engine is configured for, by a call that is in no window. Raises what the engine raises.

    `not_profiled`: the engine cannot profile itself, or its profiler saw nothing.
    """
    seen = engine.communication(*pair.call) if isinstance(engine, Profiled) else []
    return Profile(seen, None if seen else "not_profiled")
