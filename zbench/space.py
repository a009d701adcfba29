"""Which of the trials asked for can work, what each is judged against and compared with, and in which order they run.

Pure: it decides from configs and the model's geometry alone, before anything is loaded.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from zbench.config import ServedEngineConfig
from zbench.hardware.footprint import least_offload
from zbench.methods import attention, fast, graphs, lora, offload, parallel, quantization
from zbench.methods.cache import method_of
from zbench.trial import Trial, geometry_of
from zbench.zimage.geometry import SEQUENCE_MULTIPLE, Geometry

NEVER_REACHED = 10.0
"""A threshold that decides nothing: what a step changes of a residual is less than ten times the residual."""


@dataclass(frozen=True)
class Placed:
    """A trial in its sweep, and the two trials that it is held to; their ids are its own where it is one of them."""

    trial: Trial
    reference_id: str  # quality reference: its images are what this trial's are judged against
    baseline_id: str  # speed baseline: what this trial's speed-up is over
    quality_only: bool = False  # whether its images alone are asked for, and no time (`measure.quality_only`)

    @property
    def is_reference(self) -> bool:
        """Whether other trials' images are judged against this one's."""
        return self.trial.trial_id == self.reference_id

    @property
    def is_baseline(self) -> bool:
        """Whether other trials' speed-ups are over this one."""
        return self.trial.trial_id == self.baseline_id


HeldTo = Callable[["Trial"], tuple["Trial", "Trial"]]
"""The quality reference and the speed baseline of a trial."""


@dataclass(frozen=True)
class Space:
    """Trials in the order they run, references and baselines first, and those that cannot work, with the reason."""

    placed: tuple[Placed, ...]
    pruned: tuple[tuple[Placed, str], ...]
    asked: frozenset[str] = frozenset()
    """Ids of the trials that were asked for; the others are their references and baselines."""
    equal_to: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Of those pruned as equal to a trial that runs: their ids to its."""
    held_to: HeldTo = field(default=lambda trial: (reference_of(trial), reference_of(trial)), compare=False)
    """What any trial is held to, also one that is not here."""

    def place(self, trial: Trial) -> Placed:
        """Any trial held to its references, for a search that makes its own. Raises as `held_to` does."""
        reference, baseline = self.held_to(trial)
        return Placed(trial, reference.trial_id, baseline.trial_id)

    def only(self, trial_ids: Collection[str]) -> "Space":
        """With these of the trials asked for, what they are equal to, and the references and baselines of both."""
        wanted = self.asked.intersection(trial_ids)
        standing_in = {self.equal_to[i] for i in wanted if i in self.equal_to}
        chosen = [placed for placed in self.placed if placed.trial.trial_id in wanted | standing_in]
        kept = (wanted | standing_in).union(*({placed.reference_id, placed.baseline_id} for placed in chosen))
        return Space(
            tuple(placed for placed in self.placed if placed.trial.trial_id in kept),
            tuple(pair for pair in self.pruned if pair[0].trial.trial_id in wanted),
            wanted,
            self.equal_to,
            self.held_to,
        )


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
    return replace(trial, offload=offload.in_mode(trial.offload, mode))


def arrange(
    trials: Iterable[Trial],
    baseline_of: Callable[[Trial], Trial] | None = None,
    *,
    judged_by: Callable[[Trial], Trial] = reference_of,
    supports: Callable[[Trial], str | None] = lambda _: None,
    process_of: Callable[[Trial], str] = lambda _: "",
    plainest: Callable[[Trial], tuple[Trial, str]] = lambda trial: (trial, ""),
) -> Space:
    """Prune, add the quality reference and the speed baseline of each piece of work, and order what is left.

    `judged_by` gives a trial's quality reference, `baseline_of` the speed baseline that goes with a reference; without
    it that is the reference itself. Both follow from the trial alone, never from the order of `trials`. `supports` says
    why a trial's engine cannot run it, `process_of` names the process and loaded pipeline that serve it, `plainest`
    gives the plainest trial that is known to be equal to one, and why: of equal ones one runs. References run first,
    then baselines, then the others by process. Raises ConfigError as `geometry_of` does, and whatever the callables
    raise.
    """
    asked = {trial.trial_id: trial for trial in trials}
    reasons = {i: constraint(trial, geometry_of(trial.pipeline)) or supports(trial) for i, trial in asked.items()}
    works: dict[str, tuple[Trial, Trial]] = {}  # by the reference's id without offload: reference and baseline

    def held_to(trial: Trial) -> tuple[Trial, Trial]:
        work = trial.reference.trial_id
        if work not in works:
            reference = judged_by(trial)
            works[work] = reference, reference if baseline_of is None else baseline_of(reference)
        return works[work]

    runnable: dict[str, Placed] = {}
    pruned: list[tuple[Placed, str]] = []
    for trial_id, trial in asked.items():
        reference, baseline = held_to(trial)
        placed = Placed(trial, reference.trial_id, baseline.trial_id)
        if (reason := reasons[trial_id]) is not None:
            pruned.append((placed, reason))
            continue
        for one in (reference, baseline, trial):
            runnable.setdefault(one.trial_id, replace(placed, trial=one))
    equals = _equals(runnable.values(), plainest)
    pruned += [(runnable.pop(equal.trial_id), equal.why) for equal in equals]
    equal_to = {equal.trial_id: equal.to for equal in equals}
    return Space(_in_order(runnable.values(), process_of), tuple(pruned), frozenset(asked), equal_to, held_to)


class _Equal(NamedTuple):
    """A trial that need not run, the one that stands for it, and why."""

    trial_id: str
    to: str
    why: str


def _equals(placed: Iterable[Placed], plainest: Callable[[Trial], tuple[Trial, str]]) -> list[_Equal]:
    """Of equal trials all but one: the plainest, if it runs, else a reference or baseline, else the first by label.

    References and baselines run in any case.
    """
    groups: dict[str, list[tuple[Placed, str]]] = {}
    for each in placed:
        plain, why = plainest(each.trial)
        groups.setdefault(plain.trial_id, []).append((each, why))
    found = []
    for plain_id, group in groups.items():
        if len(group) == 1:
            continue
        stays, its_why = min(group, key=lambda pair: _standing(pair[0], plain_id))
        named = f"{stays.trial.label} (trial {stays.trial.trial_id})"
        found += [
            _Equal(
                each.trial.trial_id, stays.trial.trial_id, f"equal to {named}, which stands for it: {why or its_why}"
            )
            for each, why in group
            if each is not stays and not _is_held_to(each)
        ]
    return found


def _standing(placed: Placed, plain_id: str) -> tuple[bool, bool, str, str]:
    """Which of equal trials comes first; whatever was typed first is no part of it."""
    trial = placed.trial
    return trial.trial_id != plain_id, not _is_held_to(placed), trial.label, repr(trial.cache)


def _is_held_to(placed: Placed) -> bool:
    return placed.is_reference or placed.is_baseline


def _in_order(placed: Iterable[Placed], process_of: Callable[[Trial], str]) -> tuple[Placed, ...]:
    """References, baselines, then the others by process: first those of the one that is there by then."""
    first = sorted((p for p in placed if p.is_reference or p.is_baseline), key=lambda p: not p.is_reference)
    others = [p for p in placed if not (p.is_reference or p.is_baseline)]
    by_then = [process_of(p.trial) for p in first[-1:]]
    processes = [process_of(p.trial) for p in others]
    rank = {process: index for index, process in reversed(list(enumerate(by_then + processes)))}
    ordered = sorted(zip(processes, others, strict=True), key=lambda pair: rank[pair[0]])
    return (*first, *(placed for _, placed in ordered))


def constraint(trial: Trial, geometry: Geometry) -> str | None:
    """Why `trial` cannot work on any engine, or None. Names the keys and values that do not fit."""
    reason = _of_pipeline(trial, geometry)
    if reason is not None or not trial.workload.mixes:
        return reason
    if trial.hardware is not None:
        return f"workload.prompts: sizes of single prompts are measured, and hardware={trial.hardware.name} is not here"
    own = ((p.id, _of_pipeline(trial.with_own(p.own), geometry)) for p in trial.workload.prompts if p.own)
    return next((f"workload.prompts: {prompt_id}: {reason}" for prompt_id, reason in own if reason), None)


def _of_pipeline(trial: Trial, geometry: Geometry) -> str | None:
    """The same for all that it makes at its own size."""
    checks = (
        _load_fits(trial),
        _positions_fit(trial, geometry),
        _cache_fits(trial, geometry),
        _skipping_means_something(trial),
        _served_is_measured(trial),
        _sharding_fits(trial, geometry),
        _offload_fits(trial, geometry),
        _graphs_fit(trial),
        fast.problem(trial.compute, trial.pipeline, trial.parallel),
        attention.problem(trial.compute, trial.pipeline, trial.parallel),
        attention.problem_on_hardware(trial.compute, trial.hardware),
        quantization.problem(trial.compute, trial.pipeline, trial.parallel, trial.offload),
        quantization.problem_on_hardware(trial.compute, trial.hardware),
        lora.problem(trial.pipeline, projected=trial.hardware is not None),
    )
    return next((reason for reason in checks if reason), None)


def _load_fits(trial: Trial) -> str | None:
    if trial.hardware is None or not trial.workload.is_load:
        return None
    where = f"hardware={trial.hardware.name} is not here"
    return f"workload.arrivals={trial.workload.arrivals}: a load is measured and never projected, and {where}"


def _positions_fit(trial: Trial, geometry: Geometry) -> str | None:
    """Text, padded to SEQUENCE_MULTIPLE, and image have places of one rotary table, which ends somewhere."""
    of_text, *of_sides = geometry.transformer.axes_lens
    side = geometry.vae.scale_factor * geometry.transformer.patch_size
    for key, places in zip(("height", "width"), of_sides, strict=False):
        pixels = getattr(trial.pipeline, key)
        if pixels > places * side:
            return f"pipeline.{key}={pixels}: {trial.pipeline.name} has positions for {places * side} pixels at most"
    most = (of_text - 2) // SEQUENCE_MULTIPLE * SEQUENCE_MULTIPLE  # place 0 is nobody's, the image has the one after it
    if trial.pipeline.max_sequence_length > most:
        asked = f"pipeline.max_sequence_length={trial.pipeline.max_sequence_length}"
        return f"{asked}: {trial.pipeline.name} has positions for {most} tokens at most"
    return None


def _cache_fits(trial: Trial, geometry: Geometry) -> str | None:
    method = method_of(trial.cache)
    if trial.hardware is not None and method.why_not_projected is not None:
        return method.why_not_projected
    misfit = method.problem(geometry.transformer.n_layers, trial.pipeline.steps, trial.pipeline.name)
    return None if misfit is None else str(misfit)


def _served_is_measured(trial: Trial) -> str | None:
    if trial.hardware is None or not isinstance(trial.engine, ServedEngineConfig):
        return None
    there = "measures a server where it is and projects nothing; leave hardware= out, or use engine=reference"
    return f"hardware={trial.hardware.name}: engine={trial.engine.name} {there}"


def _sharding_fits(trial: Trial, geometry: Geometry) -> str | None:
    """A projection is of the built-in pipeline's stack; of what is measured, its engine knows its own rules."""
    problem = parallel.problem(trial.parallel, trial.pipeline, geometry)
    if problem is not None or trial.hardware is None:
        return problem
    return parallel.stack_problem(
        trial.parallel,
        trial.pipeline,
        geometry,
        offload=trial.offload,
        compute=trial.compute,
        cache=trial.cache,
    )


def _offload_fits(trial: Trial, geometry: Geometry) -> str | None:
    misfit = offload.problem_of_layers(trial.offload, geometry.text_encoder.n_layers)
    return misfit or offload.problem(trial.offload, compiled=fast.compiled(trial.compute))


def _graphs_fit(trial: Trial) -> str | None:
    decides = method_of(trial.cache).choice != "none"
    return graphs.problem(trial.compute, trial.parallel, trial.offload, decides_on_host=decides)


def _skipping_means_something(trial: Trial) -> str | None:
    """With random weights residual differences say nothing, so which steps a threshold skips says nothing either.

    One that no difference reaches decides nothing: what may be skipped is.
    """
    method = method_of(trial.cache)
    if trial.hardware is not None or trial.pipeline.weights != "random" or method.decider is None:
        return None
    if method.threshold is not None and method.threshold >= NEVER_REACHED:
        return None
    return (
        f"random_weights: which steps {method.decider} skips on them means nothing; force a mask with cache=forced, or "
        f"skip all that may be with cache.residual_diff_threshold={NEVER_REACHED:g}"
    )
