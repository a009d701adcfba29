"""With which offload a trial of `tune` fits: by prediction, and by what was measured where that was wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from zbench.config import OffloadConfig
from zbench.methods.offload import BY_NAME, MOVING_MORE
from zbench.space import constraint
from zbench.trial import Trial, geometry_of

Predict = Callable[[Trial], float | None]
"""A trial's peak device memory in GiB; None where nobody can say."""


@dataclass
class Fitting:
    """Of one piece of work."""

    offloads: Sequence[OffloadConfig]  # those that move least first
    limit_gib: float | None
    predict: Predict
    not_tried: dict[str, str]
    _floors: dict[str, int] = field(default_factory=dict)

    def fitted(self, trial: Trial, *, note: bool = True) -> Trial | None:
        """With the offload that moves least, works with it and is predicted to fit; why others are not is noted."""
        for offload in self.offloads[self._floors.get(how(trial), 0) :]:
            tried = replace(trial, offload=offload)
            why = constraint(tried, geometry_of(tried.pipeline)) or self.misfit(tried)
            if why is None:
                return tried
            if note:
                self.not_tried.setdefault(tried.label, why)
        return None

    def misfit(self, trial: Trial) -> str | None:
        """That it is predicted not to fit."""
        gib = self.predict(trial) if self.limit_gib is not None else None
        if gib is None or self.limit_gib is None or gib <= self.limit_gib:
            return None
        return f"is predicted to need {gib:.1f} GiB of {self.limit_gib:g}"

    def moving_more(self, trial: Trial) -> Trial | None:
        """The same with the next offload that works and is predicted to fit."""
        for offload in self.offloads[self._place(trial.offload) + 1 :]:
            tried = replace(trial, offload=offload)
            if constraint(tried, geometry_of(tried.pipeline)) is None and self.misfit(tried) is None:
                return tried
        return None

    def begin_at(self, trial: Trial, offload: OffloadConfig) -> None:
        """What computes as `trial` does has no less offload than this from now on: less was measured not to fit."""
        self._floors[how(trial)] = self._place(offload)

    def _place(self, offload: OffloadConfig) -> int:
        return self.offloads.index(offload) if offload in self.offloads else -1


def how(trial: Trial) -> str:
    """Equal for trials that compute in the same way on the same devices."""
    return f"{trial.compute} {trial.parallel}"


def in_order_of_moving(offloads: Sequence[OffloadConfig]) -> tuple[OffloadConfig, ...]:
    """Those that move least first; of equal ones that keep most layers on the device first, and pinned memory."""
    names = [mode.name for mode in MOVING_MORE]
    return tuple(sorted(offloads, key=lambda o: (names.index(BY_NAME[o.mode].name), -o.keep_layers, not o.pin_memory)))
