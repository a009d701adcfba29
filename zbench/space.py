"""Which of the trials asked for can work, what each is compared with, and in which order they run.

Pure: it decides from configs and the model's geometry alone, before anything is loaded.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from zbench.config import DBCacheConfig, PipelineConfig, SCMConfig
from zbench.errors import ConfigError
from zbench.hardware.footprint import NOT_COMPILED
from zbench.trial import Trial, is_forced
from zbench.zimage.geometry import Geometry, VaeGeometry
from zbench.zimage.layout import preset_folder

# Attention backends (diffusers' names) that return the log-sum-exp ring attention merges with.
RING_BACKENDS = ("_native_flash", "_native_cudnn", "_native_efficient", "flash", "_flash_3", "sage")


@dataclass(frozen=True)
class Placed:
    """A trial in its sweep: `baseline_id` is the trial it is compared with, its own id for a baseline."""

    trial: Trial
    baseline_id: str

    @property
    def is_baseline(self) -> bool:
        """Whether other trials are compared with this one."""
        return self.trial.trial_id == self.baseline_id


@dataclass(frozen=True)
class Space:
    """Trials in the order they run, baselines first, and those that cannot work, with the reason."""

    placed: tuple[Placed, ...]
    pruned: tuple[tuple[Placed, str], ...]


def geometry_of(pipeline: PipelineConfig) -> Geometry:
    """The dimensions of what `pipeline` runs: its own folder's where weights name one, else its preset's.

    The VAE's are those of `pipeline.vae`, if that is here.
    """
    folder = Path(pipeline.weights).expanduser()
    own = pipeline.weights not in ("auto", "random") and (folder / "transformer" / "config.json").is_file()
    key = "weights" if own else "preset"
    try:
        geometry = _geometry_in(folder if own else preset_folder(pipeline.preset))
        vae = Path(pipeline.vae or "").expanduser()
        if pipeline.vae is not None and (vae / "config.json").is_file():
            key = "vae"
            geometry = replace(geometry, vae=VaeGeometry.from_folder(vae))
    except (OSError, ValueError) as error:
        raise ConfigError(f"pipeline.{key}", getattr(pipeline, key), str(error)) from error
    return geometry


@cache
def _geometry_in(folder: Path) -> Geometry:
    """Read once a process, as every trial of a sweep asks for it."""
    return Geometry.from_folder(folder)


def arrange(trials: Iterable[Trial]) -> Space:
    """Prune, add the baseline of each piece of work, and order so that the loaded pipeline changes seldom.

    Trials that do the same work (pipeline, engine, workload, hardware) share one baseline: the first of
    them that can run, without step skipping and without sharding.
    """
    asked = {trial.trial_id: trial for trial in trials}
    reasons = {i: constraint(trial, geometry_of(trial.pipeline)) for i, trial in asked.items()}
    baselines: dict[str, Trial] = {}
    for trial_id, trial in asked.items():
        if reasons[trial_id] is None:
            baselines.setdefault(_work(trial), trial.baseline)
    runnable = {b.trial_id: b for b in baselines.values()}
    runnable.update((i, trial) for i, trial in asked.items() if reasons[i] is None)

    def place(trial: Trial) -> Placed:
        baseline = baselines.get(_work(trial))
        return Placed(trial, baseline.trial_id if baseline else trial.trial_id)

    placed = [place(trial) for trial in runnable.values()]
    residents: dict[str, int] = {}
    for p in placed:
        residents.setdefault(p.trial.resident_key, len(residents))
    placed.sort(key=lambda p: (not p.is_baseline, residents[p.trial.resident_key]))
    pruned = [(place(trial), reason) for i, trial in asked.items() if (reason := reasons[i]) is not None]
    return Space(tuple(placed), tuple(pruned))


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
    cache, blocks = trial.cache, geometry.transformer.n_layers
    if not isinstance(cache, DBCacheConfig):
        return None
    if cache.Fn_compute_blocks + cache.Bn_compute_blocks > blocks:
        return (
            f"cache.Fn_compute_blocks={cache.Fn_compute_blocks} + cache.Bn_compute_blocks={cache.Bn_compute_blocks} "
            f"exceed the {blocks} blocks of {trial.pipeline.name}"
        )
    steps = trial.pipeline.steps
    if isinstance(cache, SCMConfig) and steps < 8 and steps not in (4, 6):
        return f"cache.scm_preset={cache.scm_preset}: there are masks for 4, 6 and 8 steps or more, not for {steps}"
    return None


def _sharding_fits(trial: Trial, geometry: Geometry) -> str | None:
    parallel, heads = trial.parallel, geometry.transformer.n_heads
    for key, size in (("tp_size", parallel.tp_size), ("ulysses_size", parallel.ulysses_size)):
        if heads % size:
            return f"parallel.{key}={size}: {heads} heads are not divisible by {size}"
    if parallel.ring_size > 1 and trial.compute.attention_backend not in RING_BACKENDS:
        return (
            f"parallel.ring_size={parallel.ring_size}: ring needs an attention backend that returns the log-sum-exp, "
            f"such as compute.attention_backend={RING_BACKENDS[0]}"
        )
    if parallel.world_size > 1 and trial.hardware is None:
        return (
            f"{parallel.world_size} devices: engine={trial.engine.name} measures on one device; "
            "a projection estimates sharding, such as hardware=b300 where there is none"
        )
    return None


def _offload_fits(trial: Trial) -> str | None:
    mode, on_cpu = trial.offload.mode, trial.hardware is None and trial.compute.device == "cpu"
    if on_cpu and mode == "sequential":
        return f"offload.mode={mode} needs an accelerator to offload from; the other modes work on a CPU"
    if on_cpu and trial.vram_limit_gib is not None:
        return f"hardware.vram_limit_gib={trial.vram_limit_gib:g} caps a GPU; this trial runs on the CPU"
    if mode == "group" and trial.offload.use_stream and not trial.offload.pin_memory:
        return "offload.pin_memory=false: a stream copies from pinned memory alone; add offload.use_stream=false"
    if trial.compute.compile and mode in NOT_COMPILED:
        return f"offload.mode={mode} swaps weights inside what torch.compile would compile whole; use compute=eager"
    return None


def _skipping_means_something(trial: Trial) -> str | None:
    """With random weights residual differences say nothing, so which steps a threshold skips says nothing either."""
    by_threshold = isinstance(trial.cache, DBCacheConfig) and not is_forced(trial.cache)
    if trial.hardware is not None or trial.pipeline.weights != "random" or not by_threshold:
        return None
    return "random_weights: which steps a threshold skips on them means nothing; force a mask with cache=forced"


def _work(trial: Trial) -> str:
    data = trial.to_dict()
    return str([data.get(key) for key in ("pipeline", "engine", "workload", "hardware")])
