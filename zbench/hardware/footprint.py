"""Peak device memory of a trial, from its weights, its largest activations and what an allocator adds; it
refuses to say whether that fits, except by comparison with a profile's memory.

Validated on an H100 at 1024x1024 in bf16 (MiB allocated): everything resident 22,041, without the text encoder 14,369,
of which 2,471 are the VAE decoder's and give DECODE_TENSORS. SGLang's CI holds all components on an H100 to 22,118.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from zbench.config import HardwareConfig
from zbench.hardware.traffic import WeightBytes, weights
from zbench.methods import dtypes, fast, graphs, offload, quantization
from zbench.methods.cache import method_of
from zbench.methods.offload import MOVING_MORE, OffloadMode
from zbench.methods.parallel import ParallelDims, share
from zbench.trial import Trial
from zbench.zimage.flops import bucketed_tokens, padded_tokens
from zbench.zimage.geometry import Geometry

GIB = 2**30

STAGES = {"text_encoder": "text_encode", "transformer": "denoise", "vae": "decode"}
"""The stage in which each component computes."""

TEXT_TOKENS = 64
"""Tokens a short prompt is taken to have after the chat template."""

DECODE_TENSORS = 4.83
"""Tensors of the decoder's largest size (full resolution, second-finest channels) alive at once: 2,471 MiB measured
over 512 MiB each."""

COMPILED_DECODE_TENSORS = 2.57
"""The same of a compiled decode: 1,157 MiB less at the peak (reports/h100/fast/alone, allocated with
compute.decode=compiled and without; a test takes it from there)."""

FFN_TENSORS = 3
"""Feed-forward tensors of a block alive at once: both halves of SwiGLU and their product."""

HIDDEN_TENSORS = 8
"""Hidden states of a block alive at once: residual, norm, q, k, v, their rotated copies, output."""

LAYERS_AHEAD = 2
"""Layers of a text encoder that are there at once where they come one by one: one computes while the next one comes."""

RESERVE = 0.07
"""Share the caching allocator reserves beyond what is allocated: 1 to 7 % on an H100 with expandable segments, more
where only layers are resident."""

CONTEXT_BYTES = 7 * GIB // 8
"""CUDA context, kernels, cuBLAS and cuDNN workspaces outside the allocator, on an H100 (torch 2.11)."""


def peak_device_bytes(trial: Trial, geometry: Geometry, dtype_bytes: int, text_tokens: int) -> int:
    """What NVML would show for one device's process at its peak."""
    allocated = peak_allocated_bytes(trial, geometry, dtype_bytes, text_tokens)
    return round(allocated * (1 + RESERVE)) + CONTEXT_BYTES


def peak_allocated_bytes(trial: Trial, geometry: Geometry, dtype_bytes: int, text_tokens: int) -> int:
    """Largest sum of weights and activations over the three stages of an image, on one device."""
    resident = _resident(trial, geometry, dtype_bytes)
    working = _activations(trial, geometry, dtype_bytes, text_tokens)
    return round(max(resident[stage] + working[stage] for stage in working))


def next_offload(trial: Trial, geometry: Geometry, memory: Mapping[str, int] | None) -> str | None:
    """For a trial that ran out of device memory: of the offload modes that move more than its own (which it may be too,
    where layers were kept), the one that moves least and is predicted to fit under its cap, or into the device's
    `memory["total"]` bytes.

    None where no mode is, or nobody knows how much there is.
    """
    limit_bytes = trial.vram_limit_gib * GIB if trial.vram_limit_gib is not None else (memory or {}).get("total")
    if limit_bytes is None:
        return None
    return _first_within(limit_bytes, trial, geometry, offload.moving_more_in(trial.offload))


def least_offload(trial: Trial, geometry: Geometry, hardware: HardwareConfig) -> str:
    """Of all offload modes, the one that moves least and is predicted to fit into what `hardware` has to use.

    `none` where no mode is, or nobody knows how much there is.
    """
    limit_gib = hardware.usable_gib
    found = None if limit_gib is None else _first_within(limit_gib * GIB, trial, geometry, MOVING_MORE)
    return found or MOVING_MORE[0].name


def fits(peak_bytes: int, hardware: HardwareConfig) -> bool | None:
    """Whether a peak is within the profile's memory, or within its cap; None where the profile does not say how
    much there is."""
    memory_gib = hardware.usable_gib
    return None if memory_gib is None else peak_bytes <= memory_gib * GIB


def _first_within(limit_bytes: float, trial: Trial, geometry: Geometry, modes: Sequence[OffloadMode]) -> str | None:
    dtype_bytes = dtypes.dtype_on("cuda", trial.compute.dtype).nbytes
    for mode in modes:
        tried = replace(trial, offload=offload.in_mode(trial.offload, mode.name))
        if _works(tried) and peak_device_bytes(tried, geometry, dtype_bytes, TEXT_TOKENS) <= limit_bytes:
            return mode.name
    return None


def _works(trial: Trial) -> bool:
    """Whether what is compiled, captured and quantised goes with its offload."""
    compute = trial.compute
    decides = method_of(trial.cache).choice != "none"
    return not (
        offload.problem(trial.offload, compiled=fast.compiled(compute))
        or graphs.problem(compute, trial.parallel, trial.offload, decides_on_host=decides)
        or quantization.problem(compute, trial.pipeline, trial.parallel, trial.offload)
    )


def trial_weights(trial: Trial, geometry: Geometry, dtype_bytes: int) -> WeightBytes:
    """Bytes of each component's weights on one device of a trial, all resident."""
    dims = ParallelDims.of(trial.parallel)
    over = dims.ranks if trial.parallel.text_encoder == "tp" else 1
    whole = weights(geometry, dtype_bytes, dims, text_encoder_over=over)
    blocks = quantization.quantised_blocks(trial.compute, geometry.transformer.n_layers)
    if blocks == 0:
        return whole
    saved = quantization.block_parameters(trial.compute, geometry.transformer) * (
        dtype_bytes - quantization.WEIGHT_BYTES
    )
    return replace(whole, transformer=whole.transformer - blocks * saved)


def encoded_tokens(trial: Trial, text_tokens: int) -> int:
    """Tokens of each prompt that the text encoder reads, padding included; `text_tokens` of them are real."""
    most = trial.pipeline.max_sequence_length
    return min(bucketed_tokens(text_tokens), most) if fast.reads_real_tokens(trial.compute) else most


def decode_share(trial: Trial, geometry: Geometry) -> float:
    """The largest part of an image's decode that one device of those that make it has, of 1: rows of latents."""
    if trial.parallel.vae == "whole":
        return 1.0
    rows = max(1, trial.pipeline.height // geometry.vae.scale_factor)
    return share(rows, ParallelDims.of(trial.parallel).ranks) / rows


def _resident(trial: Trial, geometry: Geometry, dtype_bytes: int) -> dict[str, float]:
    """Bytes of weights on the device during each stage.

    What waits on the host (`zbench.engines.reference.offloading` says when it comes) is there for its own stage
    alone, of the text encoder two layers: one computes, the next one comes. By groups come a group's blocks, twice with
    a stream that fetches the next group meanwhile, and whatever is in no block; the VAE has no list of blocks and comes
    whole. sequential: the largest weight.
    """
    loaded: WeightBytes = trial_weights(trial, geometry, dtype_bytes)
    mode, encoder, transformer = trial.offload.mode, geometry.text_encoder, geometry.transformer
    table = loaded.text_encoder_table
    if mode == "sequential":
        widest = transformer.dim * transformer.ffn_dim * dtype_bytes
        return {"text_encode": table, "denoise": widest, "decode": 0}

    def encoder_layers(count: int) -> float:
        return (loaded.text_encoder - table) * min(count, encoder.n_layers) / encoder.n_layers

    if mode == "group":
        group = trial.offload.num_blocks_per_group * (2 if trial.offload.use_stream else 1)
        step = loaded.step(min(group, transformer.n_layers), transformer.n_layers)
        return {"text_encode": table + encoder_layers(group), "denoise": step, "decode": loaded.vae}
    whole = {"text_encode": loaded.text_encoder, "denoise": loaded.transformer, "decode": loaded.vae}
    waiting = [STAGES[component] for component in offload.BY_NAME[mode].waiting]
    kept = trial.offload.keep_layers
    stays = encoder_layers(kept) + sum(size for stage, size in whole.items() if stage not in waiting)
    comes = {**whole, "text_encode": encoder_layers(kept + LAYERS_AHEAD) - encoder_layers(kept)}
    return {stage: stays + (comes[stage] if stage in waiting else 0) for stage in whole}


def _activations(trial: Trial, geometry: Geometry, dtype_bytes: int, text_tokens: int) -> dict[str, float]:
    """Bytes alive at each stage's worst moment, on the device with the largest share.

    Sequence parallelism splits a step's tokens, but for the keys and values that gather has of all of them; guidance on
    two devices halves the samples; a decode is split where the trial says so.
    """
    pipeline, t, vae = trial.pipeline, geometry.transformer, geometry.vae
    image = padded_tokens(geometry.image_tokens(pipeline.height, pipeline.width))
    dims = ParallelDims.of(trial.parallel)
    both = image + padded_tokens(text_tokens)
    samples = dims.samples(pipeline.samples)
    tokens = samples * share(both, dims.sequence)
    gathered = 2 * (samples * share(both, dims.ulysses) - tokens) / dims.tp if dims.gather > 1 else 0
    kept = method_of(trial.cache).kept_tensors
    ffn = FFN_TENSORS * t.ffn_dim / dims.tp
    decoded = (
        (1 if pipeline.vae_slicing else pipeline.images)
        * pipeline.height
        * pipeline.width
        * vae.block_out_channels[min(1, len(vae.block_out_channels) - 1)]
    )
    tensors = COMPILED_DECODE_TENSORS if trial.compute.decode == "compiled" else DECODE_TENSORS
    read = pipeline.batch_size * encoded_tokens(trial, text_tokens)
    encoded = read * FFN_TENSORS * geometry.text_encoder.intermediate_size
    return {
        "text_encode": encoded * dtype_bytes,
        "denoise": (tokens * (ffn + (HIDDEN_TENSORS + kept) * t.dim) + gathered * t.dim) * dtype_bytes,
        "decode": tensors * decoded * decode_share(trial, geometry) * dtype_bytes,
    }
