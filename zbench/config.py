"""The schema of every config group: typed dataclasses in Hydra's ConfigStore, and their range checks.

Units are in the names (`_s`, `_gib`, `_gb_s`). Every group of a trial carries `grid`: what a sweep over that
choice varies, axis name to an expression of Hydra's sweep grammar (`2,4`, `range(1,4)`). A grid is
advice to the sweep, never part of a trial. Checks have no side effects; whether a combination can
run is `space`'s question, not this module's.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from zbench.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16")
EXECUTIONS = ("auto", "measure", "project")
OFFLOAD_MODES = ("none", "text_encoder", "dit", "vae", "all", "group", "sequential")
ON_OOM = ("record", "next_offload")
VRAM_RESERVE_GIB = 0.5  # of `hardware.vram_limit_gib`, left to what grows outside torch's allocator
SCM_POLICIES = ("dynamic", "static")
SCM_PRESETS = ("slow", "medium", "fast", "ultra")


@dataclass
class Group:
    """What every group of a trial has; the others (measure, search, executor) are no axes of a sweep."""

    grid: dict[str, str] = field(default_factory=dict)


@dataclass
class PipelineConfig(Group):
    """What is generated, and with which weights."""

    name: str = MISSING
    preset: str = MISSING  # folder under zbench/zimage/presets that gives the geometry
    weights: str = "auto"  # auto, random, a folder in the official layout, or a hub id
    hub_id: str | None = None  # what `auto` looks for in the local Hugging Face cache
    download: bool = False  # whether a hub id may be fetched
    height: int = MISSING  # pixels
    width: int = MISSING  # pixels
    steps: int = 8  # transformer forwards an image
    guidance_scale: float = 0.0
    max_sequence_length: int = 512  # prompt tokens, padding included
    batch_size: int = 1  # times the prompt is in one call, each with a seed of its own
    images_per_prompt: int = 1  # images of each of them; the text encoder reads the prompt once for all
    vae: str | None = None  # folder of an AutoencoderKL that takes the place of the pipeline's own
    vae_tiling: bool = False  # decode in overlapping tiles: less memory, another image
    vae_slicing: bool = False  # decode one image of a batch at a time

    @property
    def images(self) -> int:
        """Images that one call makes."""
        return self.batch_size * self.images_per_prompt

    @property
    def named_files(self) -> tuple[str | None, ...]:
        """What decides which files are read: pipelines that agree in it read the same, at one moment."""
        return self.preset, self.weights, self.hub_id, self.vae

    @property
    def encoded_prompts(self) -> int:
        """Prompts that the text encoder reads in a call, with guidance as many empty ones."""
        return self.batch_size * (2 if self.guidance_scale > 0 else 1)

    @property
    def samples(self) -> int:
        """Samples in one transformer forward."""
        return self.encoded_prompts * self.images_per_prompt


@dataclass
class EngineConfig(Group):
    """What turns a prompt into an image."""

    name: str = MISSING
    target: str = MISSING  # module:Class of a `zbench.engines.EngineDescription`
    loads_weights: bool = True  # whether it loads pipeline.weights on this machine
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class EfficiencyConfig:
    """Which share of a datasheet's peak is reached, and where that share was measured."""

    gemm: float = MISSING  # of peak dense matmul rate
    attention: float = MISSING  # of peak dense matmul rate
    bandwidth: float = MISSING  # of memory bandwidth
    interconnect: float = MISSING  # of interconnect bandwidth
    host_link: float = MISSING  # of host link bandwidth, copies from pinned memory
    host_link_pageable: float = MISSING  # of host link bandwidth, copies from pageable memory
    vae: float = MISSING  # of peak dense matmul rate, convolutions of the VAE decoder
    activation_passes: float = MISSING  # times a compiled block moves its hidden state through memory
    step_gap_s: float = MISSING  # unexplained by both: seconds a compiled Z-Image-Turbo forward (34 blocks)
    eager_activation_passes: float = MISSING  # as activation_passes, without torch.compile
    eager_step_gap_s: float = MISSING  # as step_gap_s, without torch.compile
    image_overhead_s: float = MISSING  # scheduler, conversion to an image and other host work, seconds an image
    fp32_tflops: float | None = None  # measured float32 matmul rate that shares refer to; null: not projected
    source: str = MISSING


@dataclass
class HardwareConfig(Group):
    """One device type: datasheet figures for projection, and how to recognise it."""

    name: str = MISSING
    title: str = MISSING
    nvml_name: str | None = None  # regular expression over NVML's device name; null: not a GPU
    peak_bf16_tflops: float | None = None  # dense
    peak_fp8_tflops: float | None = None  # dense
    memory_gib: float | None = None
    vram_limit_gib: float | None = None  # cap that measured trials are held to, as if the card had no more
    memory_bandwidth_gb_s: float | None = None
    interconnect: str | None = None
    interconnect_gb_s: float | None = None  # one direction, one device
    host_link_gb_s: float | None = None  # one direction
    datasheet: str = MISSING
    efficiency: EfficiencyConfig = field(default_factory=EfficiencyConfig)

    @property
    def usable_gib(self) -> float | None:
        """Its memory, or the cap on it."""
        known = [size for size in (self.memory_gib, self.vram_limit_gib) if size is not None]
        return min(known, default=None)


@dataclass
class ParallelConfig(Group):
    """Degrees of sharding; their product is the number of devices."""

    tp_size: int = 1
    ulysses_size: int = 1
    ring_size: int = 1

    @property
    def world_size(self) -> int:
        """Devices one generation uses."""
        return self.tp_size * self.ulysses_size * self.ring_size


@dataclass
class OffloadConfig(Group):
    """Which weights wait in host memory while they are not computing."""

    mode: str = "none"
    pin_memory: bool = True  # page-locked host memory, which the device reads at the full rate of its link
    num_blocks_per_group: int = 1  # group mode; more than one only without a stream
    use_stream: bool = True  # group mode: copy while computing, CUDA only


@dataclass
class CacheConfig(Group):
    """Step skipping, with cache-dit's parameter names."""

    method: str = "none"


@dataclass
class DBCacheConfig(CacheConfig):
    """DBCache: middle blocks are skipped where the first blocks' residual changed little."""

    method: str = "dbcache"
    Fn_compute_blocks: int = 1
    Bn_compute_blocks: int = 0
    max_warmup_steps: int = 4
    residual_diff_threshold: float = 0.24
    max_continuous_cached_steps: int = 3
    enable_taylorseer: bool = False
    taylorseer_order: int = 1


@dataclass
class SCMConfig(DBCacheConfig):
    """Step computation masks: which steps may be skipped is fixed, by preset."""

    method: str = "scm"
    scm_preset: str = "medium"
    scm_policy: str = "dynamic"  # dynamic: a masked step still asks the threshold; static: forced


@dataclass
class ComputeConfig(Group):
    """Where and how the arithmetic is done."""

    device: str = "auto"  # auto: cuda where the hardware is a GPU, else cpu; a trial's is never auto
    dtype: str = "auto"  # auto: bfloat16 on a GPU, float32 on a CPU
    compile: bool = False  # torch.compile of the repeated transformer blocks
    attention_backend: str = "native"  # a name diffusers' set_attention_backend knows


@dataclass
class Prompt:
    """One text to paint."""

    id: str = MISSING
    text: str = MISSING
    language: str = "en"
    scene: str | None = None  # what must be painted, as zbench.zimage.scenes.world writes it; None: not judged


@dataclass
class WorkloadConfig(Group):
    """Which images are generated: every prompt with every seed."""

    name: str = MISSING
    prompts: list[Prompt] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])


@dataclass
class MeasureConfig:
    """How long a trial is measured."""

    max_warmup_rounds: int = 12  # warm-up ends before, once latencies have settled
    min_rounds: int = 8
    max_rounds: int = 16
    target_rel_ci: float = 0.05  # half width of the median's 95 % interval over the median
    budget_s: float = 10.0  # warm-up ends once this is spent, timed rounds once min_rounds are done as well
    timeout_s: float = 600.0  # a trial longer than this is FAILED
    lpips_weights: str | None = None  # safetensors file of lpips.LPIPS(net="alex"); None: no LPIPS
    clip_weights: str | None = None  # folder of a CLIP model; None: no CLIP score


@dataclass
class SearchConfig:
    """Which points of the grid are tried."""

    name: str = MISSING
    target: str = MISSING  # class of the search: module:Class, or an entry point's name
    n_trials: int | None = None  # random: how many points
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)  # what a search from elsewhere needs


@dataclass
class ExecutorConfig:
    """Where trials run."""

    name: str = MISSING
    target: str = MISSING  # class of the executor: module:Class, or an entry point's name
    concurrent_trials: int = 1  # how many trials run side by side, each on a device of its own
    options: dict[str, Any] = field(default_factory=dict)  # what an executor from elsewhere needs


@dataclass
class SweepConfig:
    """Where a sweep is kept and what it measures again."""

    name: str | None = None
    runs_dir: str = "runs"
    reports_dir: str = "reports"
    retry_failed: bool = False
    fresh: bool = False
    on_oom: str = "record"  # next_offload: a trial out of memory is tried again with the offload predicted to fit
    baseline: str | None = None  # overrides of how the work is done; speed-ups are over it. null: the quality reference


@dataclass
class Config:
    """One composed job."""

    pipeline: PipelineConfig = MISSING
    engine: EngineConfig = MISSING
    hardware: HardwareConfig = MISSING
    parallel: ParallelConfig = MISSING
    offload: OffloadConfig = MISSING
    cache: CacheConfig = MISSING
    compute: ComputeConfig = MISSING
    workload: WorkloadConfig = MISSING
    measure: MeasureConfig = MISSING
    search: SearchConfig = MISSING
    executor: ExecutorConfig = MISSING
    sweep: SweepConfig = field(default_factory=SweepConfig)
    execution: str = "auto"


# A cache's class says which parameters it has; `cache.method` names it in records and cannot be set on its own.
CACHE_CLASSES: dict[str, type[CacheConfig]] = {
    "none": CacheConfig,
    "dbcache": DBCacheConfig,
    "scm": SCMConfig,
}

# Group, schema name: conf/GROUP/CHOICE.yaml names its schema as /schema/GROUP@_here_: NAME.
SCHEMAS: dict[str, dict[str, type]] = {
    "pipeline": {"pipeline": PipelineConfig},
    "engine": {"engine": EngineConfig},
    "hardware": {"hardware": HardwareConfig},
    "parallel": {"parallel": ParallelConfig},
    "offload": {"offload": OffloadConfig},
    "cache": {**CACHE_CLASSES},
    "compute": {"compute": ComputeConfig},
    "workload": {"workload": WorkloadConfig},
    "measure": {"measure": MeasureConfig},
    "search": {"search": SearchConfig},
    "executor": {"executor": ExecutorConfig},
}


def register_schemas() -> None:
    """Put every schema into Hydra's ConfigStore."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=schema)
    store.store(group="schema", name="root", node=Config, package="_global_")


def check(config: Config, checked: dict[int, object] | None = None) -> None:
    """Raise ConfigError for the first value that is out of its range.

    `checked` holds the groups that passed before, by identity: they are not looked at again.
    """
    known = {} if checked is None else checked
    for name in config.__dataclass_fields__:
        group = getattr(config, name)
        if id(group) not in known:
            _finite(group, name)
            _CHECKS.get(name, lambda _: None)(group)
            known[id(group)] = group


def _check_pipeline(pipeline: PipelineConfig) -> None:
    for key in ("height", "width"):
        pixels = getattr(pipeline, key)
        if pixels < 16 or pixels % 16:
            raise ConfigError(f"pipeline.{key}", pixels, "must be a positive multiple of 16 pixels")
    _at_least("pipeline.guidance_scale", pipeline.guidance_scale, 0)
    for key in ("steps", "max_sequence_length", "batch_size", "images_per_prompt"):
        _at_least(f"pipeline.{key}", getattr(pipeline, key), 1)


def _check_hardware(hardware: HardwareConfig) -> None:
    cap = hardware.vram_limit_gib
    if cap is not None and cap <= VRAM_RESERVE_GIB:
        raise ConfigError("hardware.vram_limit_gib", cap, f"must be above the {VRAM_RESERVE_GIB:g} GiB kept in reserve")


def _check_parallel(parallel: ParallelConfig) -> None:
    for key in ("tp_size", "ulysses_size", "ring_size"):
        _at_least(f"parallel.{key}", getattr(parallel, key), 1)


def _check_offload(offload: OffloadConfig) -> None:
    _one_of("offload.mode", offload.mode, OFFLOAD_MODES)
    _at_least("offload.num_blocks_per_group", offload.num_blocks_per_group, 1)
    if offload.use_stream and offload.num_blocks_per_group > 1:
        problem = "a stream copies one block ahead; add offload.use_stream=false"
        raise ConfigError("offload.num_blocks_per_group", offload.num_blocks_per_group, problem)


def _check_compute(compute: ComputeConfig) -> None:
    _one_of("compute.device", compute.device, DEVICES)
    _one_of("compute.dtype", compute.dtype, DTYPES)


def _check_measure(measure: MeasureConfig) -> None:
    _at_least("measure.max_warmup_rounds", measure.max_warmup_rounds, 0)
    _at_least("measure.min_rounds", measure.min_rounds, 1)
    if measure.max_rounds < measure.min_rounds:
        least = f"must be at least measure.min_rounds={measure.min_rounds}"
        raise ConfigError("measure.max_rounds", measure.max_rounds, least)
    for key in ("target_rel_ci", "budget_s", "timeout_s"):
        if getattr(measure, key) <= 0:
            raise ConfigError(f"measure.{key}", getattr(measure, key), "must be above 0")


def _check_search(search: SearchConfig) -> None:
    if search.n_trials is not None:
        _at_least("search.n_trials", search.n_trials, 1)
    if not search.target.startswith("zbench."):
        return  # what it needs, it says itself
    if search.n_trials is None and search.name == "random":
        needs = "a random search needs the number of points, such as search.n_trials=16"
        raise ConfigError("search.n_trials", None, needs)
    if search.n_trials is not None and search.name == "grid":
        raise ConfigError("search.n_trials", search.n_trials, "a grid takes every point; use search=random")


def _check_executor(executor: ExecutorConfig) -> None:
    _at_least("executor.concurrent_trials", executor.concurrent_trials, 1)


def _check_sweep(sweep: SweepConfig) -> None:
    _one_of("sweep.on_oom", sweep.on_oom, ON_OOM)
    if sweep.name is not None and not re.fullmatch(r"\w[\w.-]*", sweep.name):
        raise ConfigError("sweep.name", sweep.name, "is a folder's name: letters, digits, '_', '-' and '.'")


def _check_cache(cache: CacheConfig) -> None:
    if type(cache) is not CACHE_CLASSES.get(cache.method):
        raise ConfigError("cache.method", cache.method, "is set by the choice; use cache=<choice>")
    if not isinstance(cache, DBCacheConfig):
        return
    _at_least("cache.Fn_compute_blocks", cache.Fn_compute_blocks, 1)
    _at_least("cache.Bn_compute_blocks", cache.Bn_compute_blocks, 0)
    _at_least("cache.max_warmup_steps", cache.max_warmup_steps, 0)
    _at_least("cache.residual_diff_threshold", cache.residual_diff_threshold, 0)
    if cache.max_continuous_cached_steps != -1:
        _at_least("cache.max_continuous_cached_steps", cache.max_continuous_cached_steps, 1)
    if cache.taylorseer_order not in (1, 2):
        raise ConfigError("cache.taylorseer_order", cache.taylorseer_order, "must be 1 or 2")
    if isinstance(cache, SCMConfig):
        _one_of("cache.scm_preset", cache.scm_preset, SCM_PRESETS)
        _one_of("cache.scm_policy", cache.scm_policy, SCM_POLICIES)


def _check_workload(workload: WorkloadConfig) -> None:
    if not workload.prompts:
        raise ConfigError("workload.prompts", "[]", "needs at least one prompt")
    if not workload.seeds:
        raise ConfigError("workload.seeds", "[]", "needs at least one seed")
    ids = [prompt.id for prompt in workload.prompts]
    for repeated in (i for i in ids if ids.count(i) > 1):
        raise ConfigError("workload.prompts", repeated, "two prompts have this id; every id must be unique")
    if len(set(workload.seeds)) != len(workload.seeds):
        raise ConfigError("workload.seeds", workload.seeds, "every seed must be unique")


# Group to what its values must be; a check of several groups together belongs into `check`.
_CHECKS: dict[str, Callable[[Any], None]] = {
    **{"pipeline": _check_pipeline, "hardware": _check_hardware, "parallel": _check_parallel},
    **{"offload": _check_offload, "cache": _check_cache, "compute": _check_compute, "workload": _check_workload},
    **{"measure": _check_measure, "search": _check_search, "executor": _check_executor, "sweep": _check_sweep},
    "execution": lambda execution: _one_of("execution", execution, EXECUTIONS),
}


def _one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    if value not in tuple(allowed):
        raise ConfigError(key, value, f"must be one of {', '.join(allowed)}")


def _at_least(key: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(key, value, f"must be at least {least}")


def _finite(node: object, path: str) -> None:
    """Refuse NaN and infinity anywhere: no record could hold them."""
    if isinstance(node, float) and not math.isfinite(node):
        raise ConfigError(path, node, "must be a finite number")
    if is_dataclass(node):
        for item in fields(node):
            _finite(getattr(node, item.name), f"{path}.{item.name}".lstrip("."))
    elif isinstance(node, dict):
        for key, value in node.items():
            _finite(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            _finite(value, f"{path}[{index}]")
