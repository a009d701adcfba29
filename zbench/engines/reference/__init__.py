"""The reference engine as a sweep sees it: what it can run and which trials share its pipeline. No torch is imported.

The pipeline itself is `pipeline.ReferencePipeline`, which `ReferenceEngine.engine` imports and makes.
"""

from dataclasses import replace

from zbench.config import CacheConfig
from zbench.engines import Engine, Residency, residency_by_keys
from zbench.errors import ConfigError
from zbench.methods import fast, graphs, offload, parallel, quantization
from zbench.methods.attention import MASKED, check_backend
from zbench.methods.cache import method_of
from zbench.trial import Trial, geometry_of

HANG_S = 300.0
"""How long no rank may give a sign of life during a call. The first one compiles, which takes a minute or two."""

PER_REQUEST = ("cache", "workload", "pipeline.steps")
"""What the loaded pipeline takes anew with every configuration. Guidance is not among them: it doubles the batch, and
what torch then keeps of the device's memory would count as the next trial's."""


class ReferenceEngine:
    """See `zbench.engines.EngineDescription`."""

    def __init__(self, hang_s: float = HANG_S) -> None:
        """`hang_s` is how long no rank of a trial on several devices may give a sign of life, in seconds.

        Raises ConfigError for what is no such time.
        """
        if isinstance(hang_s, bool) or not isinstance(hang_s, int | float) or not 1 <= hang_s <= 86_400:
            raise ConfigError("engine.options.hang_s", hang_s, "must be 1 to 86400 seconds")
        self._hang_s = float(hang_s)

    def supports(self, trial: Trial) -> str | None:
        """What its stack cannot shard; some of its offload modes and its cap on memory need a GPU.

        Raises ConfigError for an attention kernel that is none, or not here.
        """
        check_backend(trial.compute.attention_backend)
        lacking = None if trial.hardware is not None else quantization.lacks_package(trial.compute)
        if lacking is not None:
            return lacking
        sharded = parallel.stack_problem(
            trial.parallel,
            trial.pipeline,
            geometry_of(trial.pipeline),
            offload=trial.offload,
            compute=trial.compute,
            cache=trial.cache,
        )
        if sharded is not None:
            return sharded
        on_cpu = trial.compute.device == "cpu"
        if on_cpu and (problem := offload.problem_on_a_cpu(trial.offload)) is not None:
            return problem
        if on_cpu and (problem := graphs.problem_on_a_cpu(trial.compute)) is not None:
            return problem
        if on_cpu and trial.vram_limit_gib is not None:
            return f"hardware.vram_limit_gib={trial.vram_limit_gib:g} caps a GPU; this trial runs on the CPU"
        return None

    def residency(self, trial: Trial) -> Residency:
        """One loaded pipeline serves any cache, number of steps, prompts and seeds.

        But where gather's shares travel by copies: that pipeline serves no cache. Nor does one whose forward is
        captured because there was none. What `auto` stands for counts, so that it shares a pipeline with that.
        """
        made = residency_by_keys(_with_what_auto_is(trial), PER_REQUEST)
        copies = parallel.may_copy(trial.parallel, trial.compute, trial.cache)
        return replace(made, process=f"{made.process} by copies") if copies else made

    def uncached(self, trial: Trial) -> Trial:
        """Without a cache `auto` may stand for more: such a trial has another pipeline."""
        return replace(_with_what_auto_is(trial), cache=CacheConfig())

    def plainest(self, trial: Trial) -> tuple[Trial, str]:
        """By its cache alone. Ranks may talk in another way where something is cached, and a load may be of any rate;
        of these nothing is claimed, nor where prompts have steps of their own."""
        several = parallel.ParallelDims.of(trial.parallel).devices > 1
        if several or trial.workload.is_load or trial.workload.mixes:
            return trial, ""
        n_blocks = geometry_of(trial.pipeline).transformer.n_layers
        plain = method_of(trial.cache).plainest(n_blocks, trial.pipeline.steps)
        return replace(trial, cache=plain.cache), plain.why

    def resizes(self, trial: Trial) -> bool:
        """One device does, eager: code that was compiled, and graphs, are for one size."""
        return not _made_for_one(trial) and parallel.ParallelDims.of(trial.parallel).devices == 1

    def batching_problem(self, trial: Trial) -> str | None:
        """Compiled code and graphs are for one image a call; ranks share one image; a batch's prompts need a mask."""
        for key, value in _made_for_one(trial).items():
            return f"compute.{key}={value}: is made for one image a call"
        if (devices := parallel.ParallelDims.of(trial.parallel).devices) > 1:
            return f"parallel: {devices} devices make one image a call"
        if (kernel := trial.compute.attention_backend) not in MASKED:
            return f"compute.attention_backend={kernel}: takes no mask, which prompts of unequal length need"
        return None

    def engine(self) -> Engine:
        """Torch, diffusers and cache-dit are imported when it is called together."""
        from zbench.engines.reference.ranks.group import RankGroup

        return RankGroup("zbench.engines.reference.pipeline:ReferencePipeline", self._hang_s)


def _with_what_auto_is(trial: Trial) -> Trial:
    """What is captured, and by what gather's shares travel, in place of `auto`: a loaded pipeline has one of each."""
    compute, split = trial.compute, trial.parallel
    if compute.graphs == graphs.AUTO:
        compute = replace(compute, graphs=trial.graphs)
    if split.gather_size > 1 and split.gather_by == "auto" and not parallel.may_copy(split, compute, trial.cache):
        split = replace(split, gather_by="collectives")
    return replace(trial, compute=compute, parallel=split)


def _made_for_one(trial: Trial) -> dict[str, str]:
    """The knobs by which code or a graph is made for one size, as they are typed."""
    return fast.compiled(trial.compute) | ({} if trial.graphs == graphs.NONE else {"graphs": trial.compute.graphs})
