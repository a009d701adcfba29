"""What jobs had measured for commands that were killed, as a sweep takes it: of the GPU that was asked for, and none of
it where all is to be measured anew."""

from zbench.config import HardwareConfig, MeasureConfig
from zbench.executors import Executor, Recovered, Recovering, Setting
from zbench.sweeper.devices import landed_elsewhere
from zbench.trial import Trial


class Recovery:
    """Of one sweep."""

    def __init__(self, executor: Executor, *, fresh: bool) -> None:
        """`fresh`: none of it is wanted."""
        self._executor = executor if isinstance(executor, Recovering) else None
        self._fresh = fresh

    def of(
        self, trial: Trial, hardware: HardwareConfig | None, setting: Setting, measure: MeasureConfig
    ) -> Recovered | None:
        """What was measured of just this setting, which is what runs for `trial`. Raises as `Recovering.recovered`."""
        if self._executor is None:
            return None
        if self._fresh:
            self.forget()
            return None
        found = self._executor.recovered(setting, measure)
        if found is None or landed_elsewhere(trial, hardware, found.environment):
            return None
        return found

    def forget(self) -> None:
        """Nobody wants any more what was not taken. Raises as `Recovering.forget`."""
        if self._executor is not None:
            self._executor.forget()
