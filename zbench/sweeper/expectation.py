"""What a plan should take: each trial's latency and memory, and the wall time of the sweep.

Expectations are a roofline's and say so; a sweep that was run before knows better (`zbench report`).
"""

from zbench.config import HardwareConfig, SlurmExecutorConfig
from zbench.engines import Descriptions
from zbench.errors import ConfigError
from zbench.executors import is_elsewhere
from zbench.hardware.roofline import Expectation, expect
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims
from zbench.search import Foresight
from zbench.stats.stationary import LEAST
from zbench.sweeper.beside import companions, may_begin_a_block
from zbench.sweeper.blocks import blocks_of
from zbench.sweeper.launches import launches
from zbench.sweeper.plan import TAKE_TURNS, Plan
from zbench.trial import Trial, geometry_of
from zbench.workload import COMPANION_WARM_UPS, LEAST_OF_A_PAIR, due_times_s, request_count, whole_cycles

LOAD_S = 10.0  # to start a worker, import and load: an allowance, part of the expected sweep time


def expected_trial(plan: Plan, trial: Trial) -> Expectation | None:
    """Latency of an image and peak memory; None where the profile lacks the figures."""
    return _expect(trial, trial.hardware or plan.profiles[trial.trial_id])


def expected_sweep_s(plan: Plan) -> float | None:
    """Wall time of the whole sweep in seconds; None where it cannot be said, as where a search decides on the way."""
    low_s, high_s = sweep_ends_s(plan)
    return low_s if low_s == high_s else None


def sweep_ends_s(plan: Plan) -> tuple[float | None, float | None]:
    """Seconds of wall time that the sweep takes at least and at most; None where that cannot be said.

    Where a search takes some of the trials, that is at most the dearest of them; where others follow by what comes of
    these, at least these.
    """
    trials_s = _trials_s(plan)
    if trials_s is None:
        return None, None
    before_s, count = LOAD_S + sum(each.all_s for each in launches(plan)), len(plan.trials)
    known = plan.foresight or Foresight(count, count)
    low_s = before_s + sum(trials_s) if known.least >= count else None
    if known.most is None or known.most > count:
        return low_s, None
    dearest = sorted(trials_s, reverse=True)[: known.most]
    return low_s, before_s + sum(dearest if known.most < count else trials_s)


def _trials_s(plan: Plan) -> list[float] | None:
    """Seconds that each trial of a plan adds to its wall time; those that differ only in what is projected are one.

    Some run side by side: see `_part`.
    """
    measure = plan.measure
    found: list[float] = []
    runs: dict[str, tuple[Trial, HardwareConfig]] = {}
    twice: set[str] = set()  # references, which make their images once more for the noise floor
    beside = _uncached_beside(plan)
    begins = _begin_blocks(plan) & {uncached.trial_id for uncached, _ in beside.values()}
    for placed in plan.trials:
        trial = placed.trial
        if placed.is_reference:
            twice.add(trial.trial_id if trial.hardware is None else plan.proxy_of(trial).trial_id)
        if trial.hardware is None:
            runs[trial.trial_id] = trial, plan.profiles[trial.trial_id]
        else:  # trials that differ only in what is projected share one proxy
            assert plan.stand_in is not None
            proxy = plan.proxy_of(trial)
            runs[proxy.trial_id] = proxy, plan.stand_in.hardware
    untimed = {p.trial.trial_id for p in plan.trials if p.quality_only or measure.quality_only}
    for trial, hardware in runs.values():
        expected = _expect(trial, hardware)
        if expected is None:
            return None
        image_s = expected.latency_s
        if trial.workload.is_load:
            found.append(_load_s(trial, image_s) + min(LEAST, measure.max_warmup_rounds) * image_s)
            continue
        cycle = len(trial.workload.prompts) * len(trial.workload.seeds)
        if trial.trial_id in untimed:
            found.append(cycle * image_s)
            continue
        least, most = whole_cycles(measure.min_rounds, cycle), whole_cycles(measure.max_rounds, cycle)
        if trial.trial_id in twice:
            least = max(least, 2 * cycle)
        uncached, part = beside.get(trial.trial_id, (None, 0.0))
        if uncached is not None or trial.trial_id in begins:
            least = max(least, LEAST_OF_A_PAIR * cycle)
        rounds = min(max(least, measure.budget_s / image_s), most)
        found.append((min(LEAST, measure.max_warmup_rounds) + rounds) * image_s)
        if uncached is not None and (of_uncached := _expect(uncached, hardware)) is not None:
            warm_ups = min(COMPANION_WARM_UPS, measure.max_warmup_rounds)
            found[-1] += (warm_ups + rounds) * of_uncached.latency_s * part
    elsewhere = plan.at_once > 1 and is_elsewhere(plan.executor)
    return [seconds * _part(plan, trial, elsewhere) for seconds, (trial, _) in zip(found, runs.values(), strict=True)]


def _part(plan: Plan, trial: Trial, elsewhere: bool) -> float:
    """How much of what the sweep has at once a trial takes: of its devices; of its jobs on Slurm, and of its workers on
    the CPUs of other machines, one of any size. A trial on this machine's CPU has all of it."""
    on_gpus = trial.compute.device == "cuda"
    if isinstance(plan.executor, SlurmExecutorConfig) or (elsewhere and not on_gpus):
        return 1.0 / plan.at_once
    return min(1.0, ParallelDims.of(trial.parallel).devices / plan.at_once) if on_gpus else 1.0


def turns_share(plan: Plan) -> float | None:
    """How many more requests uncached trials make that take turns with others, of those of the trials; None where none
    does. Each trial of a plan is taken to make as many."""
    timed = {p.trial.trial_id for p in plan.trials if not p.quality_only and not p.trial.workload.is_load}
    parts = [part for trial_id, (_, part) in _uncached_beside(plan).items() if trial_id in timed]
    return sum(parts) / len(timed) if any(parts) else None


def _uncached_beside(plan: Plan) -> dict[str, tuple[Trial, float]]:
    """The uncached trial that will take turns with each, by trial id, and its part of that one's time: all of it where
    a search decides by each trial, which then has a window of its own. In the first block of one that is listed that
    is its own."""
    if not plan.measure.paired or plan.measure.quality_only or plan.executor.name not in TAKE_TURNS:
        return {}
    found = companions(plan.trials, Descriptions(outside=False, allow_code=plan.allow_code))
    beside: dict[str, list[tuple[str, Trial]]] = {}
    for trial_id, uncached in found.items():
        beside.setdefault(uncached.trial_id, []).append((trial_id, uncached))
    begins = _begin_blocks(plan)
    parts = {i: (blocks_of(len(alike)) - (i in begins)) / len(alike) for i, alike in beside.items()}
    return {
        trial_id: (uncached, parts[uncached.trial_id] if plan.asks_ahead else 1.0)
        for alike in beside.values()
        for trial_id, uncached in alike
    }


def _begin_blocks(plan: Plan) -> set[str]:
    """Trials that may be measured in the turns that others take with them, and not alone; see `sweeper.blocks`."""
    if not plan.asks_ahead or not plan.begins_blocks(plan.at_once):
        return set()
    return {placed.trial.trial_id for placed in plan.trials if may_begin_a_block(placed)}


def _load_s(trial: Trial, image_s: float) -> float:
    """A load lasts until its last request is due, or as long as its images take one after another."""
    due_s = due_times_s(trial.workload)
    return max(request_count(trial.workload) * image_s, (due_s[-1] if due_s else 0.0) + image_s)


def _expect(trial: Trial, hardware: HardwareConfig) -> Expectation | None:
    skips = method_of(trial.cache).forced_skips(trial.pipeline.steps)
    try:
        return expect(trial, geometry_of(trial.pipeline), hardware, skips)
    except ConfigError:
        return None
