"""Searches side by side at equal cost, on surfaces that are known: nothing is run, each trial is looked up.

python benchmarks/searches.py [--runs 100] [--share 0.03] [--surface NAME …] [--search NAME …]

A surface gives each trial's latency and the SSIM of each sample as pure functions of its knobs, the latency with noise
of 1 % that belongs to trial and run. A search is asked and told as a sweep does it, until its trials cost as much as
`--share` of the grid. Cost counts samples: a trial on a third of them costs a third. References are not counted, but
those of a rung are. What a search found is the fastest trial that it saw feasible on all samples; how good that is, is
said without noise: its latency over that of the grid's best.
"""

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from zbench.analysis.figures import TrialFigures
from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    EngineConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    Prompt,
    SearchConfig,
    WorkloadConfig,
)
from zbench.record import Record
from zbench.search import Search, load_search
from zbench.space import Space, arrange
from zbench.trial import Trial

MIN_SSIM = 0.95
NOISE = 0.01
CLOSE = 1.02
SAMPLES = 9
LOOKS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the cost at which it is looked what was found."""

Outcome = tuple[float, float]
"""Latency in seconds, and the SSIM of the easiest sample; a harder one has less."""


@dataclass(frozen=True)
class Knobs:
    """What a surface looks at."""

    skips: bool
    warmup: int = 8
    threshold: float = 0.0
    most_skipped: int = 1
    order: int = 0  # of TaylorSeer; 0: without
    offload: str = "none"

    @classmethod
    def of(cls, trial: Trial) -> "Knobs":
        cached = trial.cache
        if not isinstance(cached, DBCacheConfig):
            return cls(False, offload=trial.offload.mode)
        order = cached.taylorseer_order if cached.enable_taylorseer else 0
        threshold, most = cached.residual_diff_threshold, cached.max_continuous_cached_steps
        return cls(True, cached.max_warmup_steps, threshold, most, order, trial.offload.mode)


def bowl(knobs: Knobs) -> Outcome:
    """Smooth: one setting is the best, and the nearer the better. No limit binds."""
    if not knobs.skips:
        return 1.0, 1.0
    off = abs(knobs.warmup - 3) / 5 + abs(knobs.threshold - 0.21) * 3 + abs(knobs.most_skipped - 3) / 6
    return 0.4 + 0.3 * off + (0.2 if knobs.offload != "none" else 0.0), 0.99


def cliff(knobs: Knobs) -> Outcome:
    """As step skipping is: the threshold does something at four differences alone, and beyond one the image is spoilt.
    The fastest settings are infeasible."""
    if not knobs.skips:
        return 1.0, 1.0
    differences = (0.06, 0.14, 0.22, 0.34)
    passed = sum(knobs.threshold >= each for each in differences)
    skipped = min(passed * knobs.most_skipped / 2, 8.0 - knobs.warmup)
    ssim = 1.0 - 0.012 * skipped - (0.06 if passed > 3 - (knobs.warmup < 3) else 0.0) + 0.004 * (knobs.order == 1)
    return 1.0 - 0.1 * max(skipped, 0.0) + (0.3 if knobs.offload != "none" else 0.0) + 0.02 * knobs.order, ssim


def inert(knobs: Knobs) -> Outcome:
    """Two knobs of five decide, one of them by one value alone."""
    if not knobs.skips:
        return 1.0, 1.0
    return (0.6 if knobs.most_skipped == 3 else 0.75) + 0.05 * knobs.warmup, 0.96 + 0.004 * knobs.warmup


SURFACES: dict[str, Callable[[Knobs], Outcome]] = {"bowl": bowl, "cliff": cliff, "inert": inert}


def grid() -> Space:
    """1,538 trials: no cache, and 8 × 8 × 4 × 3 settings of DBCache, each with and without offload."""
    thresholds = [0.03 + 0.05 * step for step in range(8)]
    caches: list[CacheConfig] = [CacheConfig()]
    caches += [
        DBCacheConfig(
            max_warmup_steps=warmup,
            residual_diff_threshold=round(threshold, 2),
            max_continuous_cached_steps=most,
            enable_taylorseer=order > 0,
            taylorseer_order=max(order, 1),
        )
        for warmup in range(8)
        for threshold in thresholds
        for most in (1, 2, 3, 4)
        for order in (0, 1, 2)
    ]
    return arrange([_trial(cached, mode) for cached in caches for mode in ("none", "text_encoder")])


def _trial(cached: CacheConfig, mode: str) -> Trial:
    prompts = [Prompt(id=f"p{number}", text=f"prompt {number}") for number in range(SAMPLES)]
    return Trial(
        pipeline=PipelineConfig(name="zimage_tiny", preset="zimage_tiny", height=256, width=256, steps=8),
        engine=EngineConfig(name="reference", target="zbench.engines.reference:ReferenceEngine"),
        parallel=ParallelConfig(),
        offload=OffloadConfig(mode=mode),
        cache=cached,
        compute=ComputeConfig(),
        workload=WorkloadConfig(name="known", prompts=prompts, seeds=[0]),
    )


def _config(name: str, module: str, seed: int, n_trials: int | None, **options: object) -> SearchConfig:
    limits = {"min_ssim": MIN_SSIM} if options.pop("knows_limits", True) else {}
    target = f"zbench.search.{module}"
    return SearchConfig(name=name, target=target, seed=seed, n_trials=n_trials, options={**limits, **options})


def randomly(space: Space, seed: int, cost: float) -> Search:
    """So many trials, drawn."""
    config = _config("random", "random_choice:RandomSearch", seed, math.ceil(cost), knows_limits=False)
    return load_search(config, space)


def tpe(space: Space, seed: int, cost: float) -> Search:
    """Optuna's, with its 10 trials at random before it suggests any."""
    return load_search(_config("optuna", "optuna.search:OptunaSearch", seed, math.ceil(cost)), space)


def nsga2(space: Space, seed: int, cost: float) -> Search:
    """Optuna's, for latency alone."""
    config = _config(
        "optuna", "optuna.search:OptunaSearch", seed, math.ceil(cost), sampler="nsga2", objective="latency"
    )
    return load_search(config, space)


def halving(space: Space, seed: int, cost: float) -> Search:
    """As many settings as can be paid for: a third of their number is what they cost, and the rungs' references."""
    settings = max(1, int(cost * 3) - 4)
    return load_search(_config("halving", "halving:HalvingSearch", seed, settings), space)


SEARCHES: dict[str, Callable[[Space, int, float], Search]] = {
    "random": randomly,
    "tpe": tpe,
    "nsga2": nsga2,
    "halving": halving,
}
"""A search by its name in the table, made of a space, a seed, and what it may cost in whole trials."""


class Known:
    """A surface over the grid, in one run's noise."""

    def __init__(self, surface: Callable[[Knobs], Outcome], seed: int) -> None:
        self._surface, self._seed = surface, seed

    def latency_s(self, trial: Trial) -> float:
        """Without noise."""
        return self._surface(Knobs.of(trial))[0]

    def ssim(self, trial: Trial) -> float:
        """Of the hardest of the trial's samples: each further one is a little harder, two of nine much."""
        easiest = self._surface(Knobs.of(trial))[1]
        hard = [(0.001 * n + (0.006 if n in (4, 7) else 0.0)) for n in range(len(trial.workload.prompts))]
        return 1.0 if easiest == 1.0 else easiest - max(hard)

    def told(self, trial: Trial) -> tuple[Record, TrialFigures]:
        """What a sweep would tell of it."""
        noise = random.Random(f"{self._seed} {trial.trial_id}").gauss(0.0, NOISE)
        reference_id = trial.reference.trial_id
        ids = {"trial_id": trial.trial_id, "reference_id": reference_id, "baseline_id": reference_id}
        record = Record(sweep="known", label=trial.label, state="COMPLETE", config={}, environment={}, **ids)
        figures = TrialFigures(
            sweep="known",
            label=trial.label,
            reference_weights=None,
            family=trial.cache.method,
            is_reference=trial.trial_id == reference_id,
            is_baseline=trial.trial_id == reference_id,
            has_default_cache=False,
            state="COMPLETE",
            source="measured",
            offload=trial.offload.mode,
            latency_median_s=self.latency_s(trial) * (1 + noise),
            ssim_worst=self.ssim(trial),
            **ids,
        )
        return record, figures


def found(search: Search, known: Known, cost: float) -> Iterator[tuple[float, float]]:
    """After each trial: what all have cost, in whole trials, and the true latency of the best that was seen."""
    spent, best_seen_s, true_s = 0.0, math.inf, math.inf
    references: set[str] = set()
    while (trial := search.ask()) is not None:
        record, figures = known.told(trial)
        share = len(trial.workload.prompts) / SAMPLES
        spent += share
        if share < 1 and figures.reference_id not in references:
            references.add(figures.reference_id)
            spent += share
        if spent > cost + 1e-9:
            return
        seen_s = figures.latency_median_s or math.inf
        if share == 1 and (figures.ssim_worst or 0.0) >= MIN_SSIM and seen_s < best_seen_s:
            best_seen_s, true_s = seen_s, known.latency_s(trial)
        search.tell(record, figures)
        yield spent, true_s


def compare(surface: str, names: Sequence[str], space: Space, runs: int, cost: float) -> None:
    """Print a line a search."""
    whole = [p.trial for p in space.placed if p.trial.trial_id in space.asked]
    exact = Known(SURFACES[surface], 0)
    best_s = min(exact.latency_s(trial) for trial in whole if exact.ssim(trial) >= MIN_SSIM)
    looks = [cost * share for share in LOOKS]
    print(f"\n{surface}: best of {len(whole)} trials {best_s:.3f} s; median over {runs} runs of found over best")
    print(
        f"{'search':10}"
        + "".join(f"{f'{look:.0f} trials':>13}" for look in looks)
        + f"{'within 2 %':>13}{'s a run':>9}"
    )
    for name in names:
        began = time.perf_counter()
        ratios: list[list[float]] = [[] for _ in looks]
        for seed in range(runs):
            known = Known(SURFACES[surface], seed)
            path = list(found(SEARCHES[name](space, seed, cost), known, cost))
            for place, look in enumerate(looks):
                ratios[place].append(min((s for spent, s in path if spent <= look + 1e-9), default=math.inf) / best_s)
        seconds = (time.perf_counter() - began) / runs
        medians = "".join(f"{statistics.median(at):>13.3f}" for at in ratios)
        close = sum(ratio <= CLOSE for ratio in ratios[-1])
        print(f"{name:10}{medians}{f'{close} of {runs}':>13}{seconds:>9.2f}", flush=True)


def main() -> None:
    """Print a table a surface."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.03, help="of the grid's trials, that a search may cost")
    parser.add_argument("--surface", nargs="+", choices=SURFACES, default=list(SURFACES))
    parser.add_argument("--search", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    arguments = parser.parse_args()
    space = grid()
    for surface in arguments.surface:
        compare(surface, arguments.search, space, arguments.runs, arguments.share * len(space.asked))


if __name__ == "__main__":
    main()
