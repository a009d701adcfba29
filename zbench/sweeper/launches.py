"""How often a plan starts a server, and what that costs: for engines whose launches take long enough to be counted.

Example: four cache settings are one launch of SGLang 0.5.23, and four of 0.5.15.post1, which takes a cache from its
environment alone. Seconds are the engine's allowance until this run's records tell better.
"""

from dataclasses import dataclass

from zbench.engines import Descriptions
from zbench.errors import ZbenchError
from zbench.stats import median
from zbench.store import RECORDS, latest_records, read_records
from zbench.sweeper.plan import Plan


@dataclass(frozen=True)
class Launches:
    """Those of one engine in a plan."""

    engine: str
    count: int
    each_s: float  # until the first image
    measured: bool  # in this run, by its earlier launches; else the engine's allowance

    @property
    def all_s(self) -> float:
        """Seconds of all."""
        return self.count * self.each_s


def launches(plan: Plan) -> list[Launches]:
    """By engine, in the order of the plan; none of an engine that does not count them."""
    engines = Descriptions(outside=False, allow_code=plan.allow_code)
    allowances: dict[str, list[float]] = {}
    resident = ""
    for trial in (placed.trial for placed in plan.trials if placed.trial.hardware is None):
        allowance, before = engines.launch_s(trial), resident
        resident = engines.process(trial)
        if allowance and resident != before:
            allowances.setdefault(trial.engine.name, []).append(allowance)
    found = []
    for engine, each in allowances.items():
        seen = _measured_s(plan, engine)
        found.append(Launches(engine, len(each), seen or sum(each) / len(each), seen is not None))
    return found


def _measured_s(plan: Plan, engine: str) -> float | None:
    """Median of the launches that this run's records tell of."""
    journal = plan.run_folder / RECORDS
    try:
        records = latest_records(read_records(journal)) if journal.is_file() else []
    except (ZbenchError, OSError):  # whoever runs it says so
        return None
    cold = [r.measurement.cold for r in records if r.measurement is not None and r.trial.engine.name == engine]
    seen = [each.load_s + (each.first_latency_s or 0.0) for each in cold if each.load_s is not None]
    return median(seen) if seen else None
