"""An engine's calls, each at the size and with the steps that its prompt asks for; it times and keeps nothing."""

from zbench.engines import Concurrent, Engine, Generation
from zbench.trial import Trial
from zbench.workload import Pair


class Calls:
    """Knows what the engine is configured for, so that it is configured anew only where that differs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._now: Trial | None = None

    def configure(self, trial: Trial) -> None:
        """Take up a trial's setting, unless it is the engine's already."""
        if trial is not self._now and trial != self._now:
            self._now = None  # until it is done
            self.engine.configure(trial)
            self._now = trial

    def prepare(self, trial: Trial, pair: Pair) -> None:
        """What the engine must be configured for before the call of `pair`."""
        self.configure(trial if isinstance(self.engine, Concurrent) else trial.with_own(pair.own))

    def make(self, trial: Trial, pair: Pair) -> Generation:
        """One call. Raises what the engine raises. By several threads, the engine is configured for `trial` before."""
        if not isinstance(self.engine, Concurrent):
            self.prepare(trial, pair)
        elif pair.own:
            return self.engine.generate_for(trial.with_own(pair.own), *pair.call)
        return self.engine.generate(*pair.call)
