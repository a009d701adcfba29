"""What cannot work on the built-in pipeline: diffusers 0.42, cache-dit 1.5.3 and zbench's own gather.

Nothing of that stack is imported. Each rule is what its source says or a run showed; what nobody has run is refused,
and the reason says so.
"""

from zbench.config import CacheConfig, ComputeConfig, CustomCacheConfig, OffloadConfig, ParallelConfig, PipelineConfig
from zbench.methods.cache import method_of
from zbench.methods.offload import BY_NAME
from zbench.methods.parallel.dims import ParallelDims, share
from zbench.zimage.geometry import Geometry

LOG_SUM_EXP_BACKENDS = ("native", "flash", "_flash_3", "sage")
"""Attention backends (diffusers' names) that give cache-dit the log-sum-exp, which ring attention merges with."""

ULYSSES_BACKENDS = (*LOG_SUM_EXP_BACKENDS, "flash_varlen", "_native_cudnn")
"""Those that cache-dit exchanges tokens for heads around. diffusers' others would attend to a share of the tokens."""


def stack_problem(
    parallel: ParallelConfig,
    pipeline: PipelineConfig,
    geometry: Geometry,
    *,
    offload: OffloadConfig,
    compute: ComputeConfig,
    cache: CacheConfig,
) -> str | None:
    """Why the built-in pipeline cannot run it, naming key, value and the way out; None where it can.

    It is asked of settings that `legality.problem` has nothing against.
    """
    dims = ParallelDims.of(parallel)
    if dims.devices == 1:
        return None
    checks = (
        _ring(parallel, dims, pipeline, compute.attention_backend),
        _ulysses(parallel, dims, geometry.transformer.n_heads, compute.attention_backend),
        _compiled(parallel, compute),
        _gather(parallel, dims, geometry.transformer.n_heads, compute, cache),
        _tiles(parallel, dims),
        _offload(parallel, dims, offload.mode),
        _lora(dims, pipeline),
        _cache(dims, cache),
    )
    return next((reason for reason in checks if reason), None)


def may_copy(parallel: ParallelConfig, compute: ComputeConfig, cache: CacheConfig) -> bool:
    """Whether gather's shares may travel by copies, where the GPUs can reach each other.

    Layers that follow one another take turns with the buffers. A cache skips layers, so that two which share a buffer
    may be neighbours.
    """
    copies = parallel.gather_size > 1 and parallel.gather_by != "collectives"
    return copies and compute.device != "cpu" and cache.method == "none"


def spreads_heads(heads: int, devices: int) -> bool:
    """Whether cache-dit can spread so many heads: it pads them, with fewer than a device then has."""
    each = share(heads, devices)
    padded = each * devices - heads
    return padded == 0 or padded < each


def _ring(parallel: ParallelConfig, dims: ParallelDims, pipeline: PipelineConfig, backend: str) -> str | None:
    if dims.ring == 1:
        return None
    named = f"parallel.ring_size={dims.ring}"
    if parallel.ring_rotate_method != "p2p":
        return f"parallel.ring_rotate_method={parallel.ring_rotate_method}: cache-dit 1.5.3 has p2p alone"
    if backend not in LOG_SUM_EXP_BACKENDS:
        return (
            f"{named}: compute.attention_backend={backend} does not give cache-dit the log-sum-exp that ring merges "
            f"with; {', '.join(LOG_SUM_EXP_BACKENDS)} do"
        )
    if pipeline.guidance_scale > 0 and dims.cfg == 1:
        return (
            f"{named}: pipeline.guidance_scale={pipeline.guidance_scale:g} puts two prompts in a forward, whose "
            "lengths may need a mask, and ring takes none; parallel.cfg_size=2 parts them"
        )
    return None


def _ulysses(parallel: ParallelConfig, dims: ParallelDims, heads: int, backend: str) -> str | None:
    """cache-dit's Ulysses; beside gather it is zbench's own."""
    if dims.ulysses == 1 or dims.gather > 1:
        return None
    named, left = dims.named("tp", "ulysses"), heads // dims.tp
    if parallel.ulysses_async and dims.ring > 1:
        return (
            f"parallel.ulysses_async=true: beside parallel.ring_size={dims.ring} cache-dit 1.5.3 attends to a share "
            "of the tokens alone; leave it out"
        )
    if backend not in ULYSSES_BACKENDS:
        return (
            f"parallel.ulysses_size={dims.ulysses}: compute.attention_backend={backend} exchanges no tokens for heads; "
            f"{', '.join(ULYSSES_BACKENDS)} do"
        )
    if not spreads_heads(left, dims.ulysses):
        padded = share(left, dims.ulysses) * dims.ulysses - left
        return (
            f"{named}: {left} heads over {dims.ulysses} devices need {padded} padded ones, and cache-dit takes fewer "
            "than a device has; use fewer devices, or parallel.gather_size"
        )
    return None


def _compiled(parallel: ParallelConfig, compute: ComputeConfig) -> str | None:
    if parallel.ulysses_anything and compute.compile:
        return (
            "parallel.ulysses_anything=true: asks other ranks for sizes, which torch.compile cannot; use compute=eager"
        )
    if parallel.ring_size > 1 and compute.graphs == "all":
        return f"compute.graphs=all: nobody has captured ring's sends (parallel.ring_size={parallel.ring_size})"
    return None


def _gather(
    parallel: ParallelConfig, dims: ParallelDims, heads: int, compute: ComputeConfig, cache: CacheConfig
) -> str | None:
    if dims.gather == 1:
        return None
    if parallel.gather_by == "copies" and compute.device == "cpu":
        return "parallel.gather_by=copies: GPUs copy, and this trial runs on the CPU; collectives do on both"
    if parallel.gather_by == "copies" and not may_copy(parallel, compute, cache):
        return (
            f"parallel.gather_by=copies: cache.method={cache.method} skips layers, between which copies take turns; "
            "use collectives, or cache=none"
        )
    for key in ("ulysses_anything", "ulysses_async"):
        if getattr(parallel, key):
            return f"parallel.{key}=true: is cache-dit's, and parallel.gather_size={dims.gather} is not; leave it out"
    left = heads // dims.tp
    if left % dims.ulysses:
        return (
            f"{dims.named('tp', 'ulysses', 'gather')}: {left} heads are not divisible by "
            f"parallel.ulysses_size={dims.ulysses}; parallel.gather_size alone takes any number"
        )
    return None


def _tiles(parallel: ParallelConfig, dims: ParallelDims) -> str | None:
    if parallel.vae == "tiled" and dims.ranks > 2:
        return (
            f"parallel.vae=tiled: of {dims.ranks} devices the third and later had another image when it was tried with "
            "cache-dit 1.5.3; use parallel.vae=split"
        )
    return None


def _offload(parallel: ParallelConfig, dims: ParallelDims, mode: str) -> str | None:
    """Whole components may wait on the host where their weights are plain and nobody else wraps what calls them."""
    waiting, key = BY_NAME[mode].waiting, f"offload.mode={mode}"
    if mode == "sequential":
        return f"{key}: accelerate's hooks compute on the first device alone; use one device, or another mode"
    if mode == "group" and dims.ranks > 1:
        return (
            f"{key}: diffusers' groups and sharding both hook the blocks, which nobody has run together; "
            "offload.mode=all moves whole components"
        )
    if "transformer" in waiting and dims.tp > 1:
        return (
            f"{key}: parallel.tp_size={dims.tp} splits the transformer's weights, and split ones cannot be moved; "
            "use offload.mode=none, or shard by parallel.gather_size"
        )
    if "text_encoder" in waiting and parallel.text_encoder == "tp":
        return f"{key}: parallel.text_encoder=tp splits its weights, and split ones cannot be moved; leave one out"
    if "vae" in waiting and parallel.vae != "whole":
        return (
            f"{key}: moves the VAE around its decode, and parallel.vae={parallel.vae} replaces that, which nobody has "
            "run together; use parallel.vae=whole"
        )
    return None


def _lora(dims: ParallelDims, pipeline: PipelineConfig) -> str | None:
    if dims.tp > 1 and pipeline.lora is not None and not pipeline.lora_fused:
        return (
            f"parallel.tp_size={dims.tp}: splits plain layers, and pipeline.lora_fused=false puts a LoRA beside them; "
            "use pipeline.lora_fused=true"
        )
    return None


def _cache(dims: ParallelDims, cache: CacheConfig) -> str | None:
    if dims.ranks > 1 and isinstance(cache, CustomCacheConfig):
        return (
            f"cache.method={cache.method}: nobody has run a cache from outside zbench on several devices an image, "
            "which must all skip the same steps; parallel.dp_size makes images side by side"
        )
    threshold = method_of(cache).threshold
    if dims.cfg > 1 and dims.ring > 1 and threshold is not None and 0 < threshold < 1:
        return (
            f"{dims.named('cfg', 'ring')}: cache.method={cache.method} compares two prompts as long as the longer one, "
            "which may need a mask, and ring takes none; parallel.gather_size takes ring's place"
        )
    return None
