"""Which of the trials asked for can work, what each is judged against and compared with, and in which order they run.

Pure: it decides from configs and the model's geometry alone, before anything is loaded.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from zbench.hardware.footprint import least_offload
from zbench.methods import offload
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial, geometry_of
from zbench.zimage.geometry import Geometry


@dataclass(frozen=True)
class Placed:
    """A trial in its sweep, and the two trials that it is held to; their ids are its own where it is one of them."""

    trial: Trial
    reference_id: str  # quality reference: its images are what this trial's are judged against
    baseline_id: str  # speed baseline: what this trial's speed-up is over

    @property
    def is_reference(self) -> bool:
        """Whether other trials' images are judged against this one's."""
        return self.trial.trial_id == self.reference_id

    @property
    def is_baseline(self) -> bool:
        """Whether other trials' speed-ups are over this one."""
        return self.trial.trial_id == self.baseline_id


@dataclass(frozen=True)
class Space:
    """Trials in the order they run, references and baselines first, and those that cannot work, with the reason."""

    placed: tuple[Placed, ...]
    pruned: tuple[tuple[Placed, str], ...]


def reference_of(trial: Trial) -> Trial:
    """The quality reference of `trial`: `trial.reference`, with the offload that a projection of it needs to fit.

    Offload does not change images. Raises ConfigError as `geometry_of` does.
    """
    return made_to_fit(trial.reference)


def made_to_fit(trial: Trial) -> Trial:
    """`trial` with the offload that it needs to fit, where it is projected.

    A projection cannot run out of memory, so the mode that moves least and is predicted to fit serves, `none` if none
    is. What is measured is tried as it is; the sweep sees whether it fits.
    """
    if trial.hardware is None:
        return trial
    mode = least_offload(trial, geometry_of(trial.pipeline), trial.hardware)
    return replace(trial, offload=replace(trial.offload, mode=mode))


def arrange(trials: Iterable[Trial], baseline_of: Callable[[Trial], Trial] | None = None) -> Space:
    """Prune, add the quality reference and the speed baseline of each piece of work, and order what is left.

    `baseline_of` gives the speed baseline that goes with a reference; without it that is the reference itself. Both
    follow from the trial alone, never from the order of `trials`. References run first, then baselines, then the
    others by resident pipeline. Raises ConfigError as `geometry_of` does, and whatever `baseline_of` raises.
    """
    asked = {trial.trial_id: trial for trial in trials}
    reasons = {i: constraint(trial, geometry_of(trial.pipeline)) for i, trial in asked.items()}
    works: dict[str, tuple[Trial, Trial]] = {}  # by the reference's id without offload: reference and baseline

    def held_to(trial: Trial) -> tuple[Trial, Trial]:
        work = trial.reference.trial_id
        if work not in works:
            reference = reference_of(trial)
            works[work] = reference, reference if baseline_of is None else baseline_of(reference)
        return works[work]

    runnable: dict[str, Placed] = {}
    pruned: list[tuple[Placed, str]] = []
    for trial_id, trial in asked.items():
        reference, baseline = held_to(trial)
        ids = reference.trial_id, baseline.trial_id
        if (reason := reasons[trial_id]) is not None:
            pruned.append((Placed(trial, *ids), reason))
            continue
        for one in (reference, baseline, trial):
            runnable.setdefault(one.trial_id, Placed(one, *ids))
    return Space(_in_order(runnable.values()), tuple(pruned))


def _in_order(placed: Iterable[Placed]) -> tuple[Placed, ...]:
    """References, baselines, then the others by resident pipeline: first those of the one that is loaded by then."""
    first = sorted((p for p in placed if p.is_reference or p.is_baseline), key=lambda p: not p.is_reference)
    others = [p for p in placed if not (p.is_reference or p.is_baseline)]
    keys = [p.trial.resident_key for p in (*first[-1:], *others)]
    rank = {key: index for index, key in reversed(list(enumerate(keys)))}
    return (*first, *sorted(others, key=lambda p: rank[p.trial.resident_key]))


def constraint(trial: Trial, geometry: Geometry) -> str | None:
    """Why `trial` cannot work, or None. Names the keys and values that do not fit."""
    checks = (
        _cache_fits(trial, geometry),
        _skipping_means_something(trial),
        _sharding_fits(trial, geometry),
        _offload_fits(trial),
    )
    return next((reason for reason in checks if reason), None)


def _cache_fits(trial: Trial, geometry: Geometry) -> str | None:
    method = method_of(trial.cache)
    if trial.hardware is not None and method.why_not_projected is not None:
        return method.why_not_projected
    misfit = method.problem(geometry.transformer.n_layers, trial.pipeline.steps, trial.pipeline.name)
    return None if misfit is None else str(misfit)


def _sharding_fits(trial: Trial, geometry: Geometry) -> str | None:
    dims = ParallelDims.of(trial.parallel)
    problem = dims.problem(geometry.transformer.n_heads, trial.compute.attention_backend)
    if problem is None and dims.devices > 1 and trial.hardware is None:
        return (
            f"{dims.devices} devices: engine={trial.engine.name} measures on one device; "
            "a projection estimates sharding, such as hardware=b300 where there is none"
        )
    return problem


def _offload_fits(trial: Trial) -> str | None:
    if trial.hardware is None and trial.compute.device == "cpu":
        problem = offload.problem_on_a_cpu(trial.offload)
        if problem is not None:
            return problem
        if trial.vram_limit_gib is not None:
            return f"hardware.vram_limit_gib={trial.vram_limit_gib:g} caps a GPU; this trial runs on the CPU"
    return offload.problem(trial.offload, compiled=trial.compute.compile)


def _skipping_means_something(trial: Trial) -> str | None:
    """With random weights residual differences say nothing, so which steps a threshold skips says nothing either."""
    decider = method_of(trial.cache).decider
    if trial.hardware is not None or trial.pipeline.weights != "random" or decider is None:
        return None
    return f"random_weights: which steps {decider} skips on them means nothing; force a mask with cache=forced"
