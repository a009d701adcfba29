"""What a sweep is going to do: its trials in order, whether each is measured or projected, and its name.

Everything here is decided before anything is loaded, and nothing here writes.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from zbench.analysis.work import work_key, work_names
from zbench.composition import NO_AXES, Jobs
from zbench.config import (
    ComputeConfig,
    Config,
    ExecutorConfig,
    HardwareConfig,
    MeasureConfig,
    OffloadConfig,
    ParallelConfig,
    SearchConfig,
    SweepConfig,
)
from zbench.engines import Descriptions
from zbench.environment import DeviceLike
from zbench.errors import ConfigError, HardwareError, OverrideError
from zbench.hardware.detect import ANY_GPU, describe_present, is_present
from zbench.methods import lora, quantization
from zbench.methods.cache import method_of
from zbench.plugins import check_targets
from zbench.search import Foresight, preview
from zbench.search.question import question
from zbench.search.rates import unloaded
from zbench.space import Placed, Space, arrange, constraint, reference_of
from zbench.sweeper.beside import companions, turns_told
from zbench.sweeper.devices import check_devices, too_many
from zbench.sweeper.reference import named_reference
from zbench.trial import Trial, geometry_of, settled
from zbench.workload import check_scenes, request_count

LOCAL = "local"
"""The executor whose workers share this process's folders."""

TAKE_TURNS = ("local", "ray", "slurm")
"""Executors whose workers take turns."""


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs."""

    name: str
    command: str  # what to type to go on
    space: Space  # all that the search may choose of
    preview: Space  # what it will choose, as far as it can say before anything has run
    measure: MeasureConfig
    sweep: SweepConfig
    executor: ExecutorConfig
    search: SearchConfig
    allow_code: bool  # whether classes from outside zbench may run that no entry point names
    profiles: Mapping[str, HardwareConfig]  # trial id to the profile of the hardware that it is measured on
    stand_in: Config | None  # pipeline and hardware that proxies run on; None where nothing is projected
    notes: tuple[str, ...] = ()
    foresight: Foresight | None = None  # of the search; None: all of the preview comes, and nothing else
    asks_ahead: bool = True  # whether several trials of the search may share an uncached one
    at_once: int = 1  # trials that run side by side: of one GPU, or in jobs of any size

    @property
    def lists_all(self) -> bool:
        """Whether `trials` are those that will run, no more and no fewer."""
        count = len(self.trials)
        return self.foresight in (None, Foresight(count, count))

    @property
    def trials(self) -> tuple[Placed, ...]:
        """Those that will run, as far as that is known, in their order: references and baselines first."""
        return self.preview.placed

    @property
    def pruned(self) -> tuple[tuple[Placed, str], ...]:
        """Those that cannot work, with the reason."""
        return self.preview.pruned

    @property
    def run_folder(self) -> Path:
        """Where the journal is kept."""
        return Path(os.path.expanduser(self.sweep.runs_dir)) / self.name

    def begins_blocks(self, at_once: int) -> bool:
        """Whether a baseline, and any other uncached trial, may be measured in its first block, where so many tasks run
        at once: where that is one, by a worker that shares this process's folders."""
        return self.executor.name == LOCAL and at_once == 1

    def proxy_of(self, trial: Trial) -> Trial:
        """What is measured in place of a projected trial: its cache setting on the tiny pipeline, on this CPU."""
        assert self.stand_in is not None, "a plan with a projected trial has a stand-in"
        tiny = self.stand_in.pipeline
        return replace(
            trial,
            pipeline=replace(tiny, steps=trial.pipeline.steps, guidance_scale=trial.pipeline.guidance_scale),
            cache=method_of(trial.cache).scaled(
                from_layers=geometry_of(trial.pipeline).transformer.n_layers,
                to_layers=geometry_of(tiny).transformer.n_layers,
            ),
            parallel=ParallelConfig(),
            offload=OffloadConfig(),
            compute=ComputeConfig(device="cpu"),
            hardware=None,
        )

    @property
    def report_folder(self) -> Path:
        """Where the report is written."""
        return Path(os.path.expanduser(self.sweep.reports_dir)) / self.name


def make_plan(
    jobs: Jobs,
    stand_in: Callable[[], Config],
    devices: Sequence[DeviceLike] | None,
    *,
    command: str,
    prefix: str,
    baseline_of: Callable[[Trial], Trial] | None = None,
    runs: bool = False,
    allow_code: bool = False,
) -> Plan:
    """Arrange composed jobs into a plan; `prefix` begins the default name, `command` is what the user typed. `devices`
    are those that a trial may have; None: nobody knows, so that whatever is named is there. `stand_in` composes what
    proxies run on, and is called only if something is projected. `baseline_of` gives the speed
    baseline that `sweep.baseline` names, for each quality reference. Code from outside zbench is asked nothing
    unless the plan `runs`; `allow_code` permits it where no entry point does.

    Raises HardwareError for hardware that must be measured and is not here, OverrideError when no
    trial is left, naming the first reason, ConfigError for a `sweep.baseline` that cannot work.
    """
    first, engines = jobs.jobs[0].config, Descriptions(outside=runs, allow_code=allow_code)
    _refuse_several_ways([job.config for job in jobs.jobs])
    _refuse_untimed_load([job.config for job in jobs.jobs])
    lora.check_used(job.config.pipeline for job in jobs.jobs)
    quantization.check_used(job.config.compute for job in jobs.jobs)
    for workload in {id(job.config.workload): job.config.workload for job in jobs.jobs}.values():
        check_scenes(workload)
    asked = [(trial_of(job.config, devices), job.config.hardware) for job in jobs.jobs]
    trials = [trial for trial, _ in asked]
    unfit = partial(_unfit, too_many(asked, devices), engines)
    weights = first.sweep.reference_weights
    judged_by: Callable[[Trial], Trial] = reference_of if weights is None else named_reference(weights, trials)
    arranged = partial(arrange, trials, baseline_of, judged_by=judged_by)
    space = arranged(supports=unfit, process_of=engines.process, plainest=engines.plainest)
    named_by = space
    if runs and check_targets(trials, allow_code=allow_code):  # a plan asks no engine from outside: one name for both
        own = Descriptions(outside=False, allow_code=allow_code)
        named_by = arranged(supports=partial(_unfit, too_many(asked, devices), own), plainest=own.plainest)
    chosen, said, foresight, asks_ahead = preview(first.search, space, allow_code=allow_code)
    if not chosen.placed:
        placed, reason = chosen.pruned[0]
        none_works = f"none of {len(chosen.pruned)} trials can work; {placed.trial.label}: {reason}"
        raise OverrideError(f"an empty sweep: {none_works}")
    _check_baselines(chosen.placed, first.sweep.baseline, unfit)
    return Plan(
        name=first.sweep.name or f"{prefix}-{question(named_by, first.search, weights)}",
        command=command,
        space=space,
        preview=chosen,
        search=first.search,
        allow_code=allow_code,
        measure=first.measure,
        sweep=first.sweep,
        executor=first.executor,
        profiles=_profiles(asked, (*space.placed, *(placed for placed, _ in space.pruned), *chosen.placed)),
        stand_in=stand_in() if any(p.trial.hardware is not None for p in space.placed) else None,
        notes=(*jobs.notes, *_sought(space), *said, *_known_before(chosen.placed, first, engines)),
        foresight=foresight,
        asks_ahead=asks_ahead,
    )


def _known_before(placed: Sequence[Placed], first: Config, engines: Descriptions) -> Iterator[str]:
    """What is measured and known to skip nothing, and where turns are taken with what has no row, or not at all."""
    for trial in (p.trial for p in placed if method_of(p.trial.cache).skips):
        plain, why = engines.plainest(trial)
        if not method_of(plain.cache).skips:
            yield f"{trial.label}: {why}, so that it is measured as an uncached trial"
    if first.measure.paired and not first.measure.quality_only and first.executor.name in TAKE_TURNS:
        yield from turns_told(placed, companions(placed, engines), engines)


def _sought(space: Space) -> Iterator[str]:
    """What a plan cannot list, as it depends on what comes of it: the rates that are going to be tried."""
    for trial in (p.trial for p in space.placed if p.trial.workload.seeks_rate and p.trial.trial_id in space.asked):
        workload = trial.workload
        yield (
            f"{trial.label}: the highest rate whose p95 is within workload.latency_objective_s="
            f"{workload.latency_objective_s:g} is sought, in about 6 loads of {request_count(workload)} requests each"
        )


def _unfit(too_many_devices: Callable[[Trial], str | None], engines: Descriptions, trial: Trial) -> str | None:
    """Why a trial cannot work here, or None: too few devices, or what its engine says."""
    return too_many_devices(trial) or engines.supports(trial)


def _check_baselines(placed: Sequence[Placed], named: str | None, unfit: Callable[[Trial], str | None]) -> None:
    """Raise ConfigError for a named baseline that cannot work, saying for which piece of work."""
    works = {work_key(p.trial): p.trial for p in placed}
    names = dict(zip(works, work_names(list(works.values())), strict=True))
    for trial in (p.trial for p in placed if p.is_baseline and not p.is_reference):
        problem = constraint(trial, geometry_of(trial.pipeline)) or unfit(trial)
        if problem is not None:
            raise ConfigError("sweep.baseline", repr(named), f"cannot work for {names[work_key(trial)]}: {problem}")


def _refuse_untimed_load(configs: Sequence[Config]) -> None:
    """Raise ConfigError where times alone say something, and none is to be taken."""
    load = next((c.workload.arrivals for c in configs if c.measure.quality_only and c.workload.is_load), None)
    if load is not None:
        problem = f"a load (workload.arrivals={load}) is there to be timed; leave one of them out"
        raise ConfigError("measure.quality_only", "true", problem)


def _refuse_several_ways(configs: Sequence[Config]) -> None:
    """Raise OverrideError where jobs, of several experiments say, are to be measured or kept in different ways."""
    for group in NO_AXES:
        first, *others = {id(value): value for value in (getattr(config, group) for config in configs)}.values()
        for other in others:
            for item in fields(first):
                one, two = getattr(first, item.name), getattr(other, item.name, None)
                if one != two:
                    key, values = f"{group}.{item.name}", " and ".join(sorted(map(str, (one, two))))
                    raise OverrideError(
                        f"{key}: {values} are asked for in one sweep, which is measured and kept in one way; type "
                        f"{key}=, or sweep the experiments apart"
                    )


def _profiles(asked: Sequence[tuple[Trial, HardwareConfig]], placed: Sequence[Placed]) -> dict[str, HardwareConfig]:
    """The hardware profile of every trial: its own job's; a reference or baseline not asked for has that of the
    trials that are held to it. Of two profiles of one trial the first by name counts, whatever was typed first."""
    profiles: dict[str, HardwareConfig] = {}

    def add(trial_id: str, hardware: HardwareConfig) -> None:
        known = profiles.setdefault(trial_id, hardware)
        if hardware.name < known.name:
            profiles[trial_id] = hardware

    for trial, hardware in asked:
        add(trial.trial_id, hardware)
        if trial.workload.seeks_rate:
            add(unloaded(trial).trial_id, hardware)
    by_device = {trial.compute.device: hardware for trial, hardware in reversed(asked)}
    for made in (p for p in placed if p.trial.trial_id not in profiles and p.trial.hardware is None):
        known = profiles.get(made.reference_id, by_device.get(made.trial.compute.device))
        profiles |= {} if known is None else {made.trial.trial_id: known}  # by the search itself
    for place, hardware in [(p, profiles[p.trial.trial_id]) for p in placed if p.trial.trial_id in profiles]:
        for trial_id in (place.reference_id, place.baseline_id):
            add(trial_id, hardware)
    return profiles


def trial_of(config: Config, devices: Sequence[DeviceLike] | None) -> Trial:
    """The trial of a configuration, with its device and native dtype decided; projected if its hardware is not among
    `devices`. Where nobody knows these (None), all hardware is there.

    Raises HardwareError for hardware that must be measured and is not here, or not in the number asked for.
    """
    present = devices is None or is_present(config.hardware, devices)
    if config.execution == "measure" and not present:
        raise HardwareError(
            f"execution=measure with hardware={config.hardware.name}, which is not here; "
            f"{describe_present(devices or ())}; leave execution out to project"
        )
    projected = config.execution == "project" or not present
    if projected and (config.hardware.nvml_name is None or config.hardware.name == ANY_GPU):
        raise HardwareError(
            f"execution=project with hardware={config.hardware.name}: only GPUs that are named are projected, such as "
            "hardware=b300"
        )
    if config.compute.device == "cuda" and devices is not None and not devices and not projected:
        raise HardwareError(
            f"compute.device=cuda: {describe_present(devices)}; project it with hardware=h100 or the like, or run on "
            "the CPU with compute.device=auto"
        )
    device = config.compute.device
    if device == "auto":
        device = "cuda" if config.hardware.nvml_name else "cpu"
    compute = settled(config.compute, device, config.parallel, config.pipeline)
    trial = Trial.from_config(replace(config, compute=compute), projected=projected)
    check_devices(trial, config.hardware, devices)
    return trial
