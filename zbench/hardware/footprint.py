"""Peak device memory of a trial, from its weights, its largest activations and what an allocator adds; it
refuses to say whether that fits, except by comparison with a profile's memory.

Validated on one figure: transformer and VAE resident, 1024x1024, bf16, peaked at 15.6 GB on an H100, of which
12.5 GB are weights. The rest is the VAE decoder's, and gives DECODE_TENSORS. SGLang's CI holds all components
on an H100 to 22,118 MB allocated, which this module puts at 22,541 MiB.
"""

from zbench.config import DBCacheConfig, HardwareConfig
from zbench.hardware.traffic import Weights, weights
from zbench.trial import Trial
from zbench.zimage.flops import padded_tokens
from zbench.zimage.geometry import Geometry

GIB = 2**30

DECODE_TENSORS = 5.8
"""Tensors of the decoder's largest size (full resolution, second-finest channels) alive at once: 3.1 GB
measured over 0.54 GB each."""

FFN_TENSORS = 3
"""Feed-forward tensors of a block alive at once: both halves of SwiGLU and their product."""

HIDDEN_TENSORS = 8
"""Hidden states of a block alive at once: residual, norm, q, k, v, their rotated copies, output."""

CACHE_TENSORS = 4
"""Hidden states DBCache keeps between steps: residuals of the first and of the middle blocks, now and
before."""

RESERVE = 0.10
"""Share the caching allocator reserves beyond what is allocated. An assumption."""

CONTEXT_BYTES = GIB // 2
"""CUDA context, cuBLAS and cuDNN workspaces outside the allocator. An assumption."""


def peak_device_bytes(trial: Trial, geometry: Geometry, dtype_bytes: int, text_tokens: int) -> int:
    """What NVML would show for one device's process at its peak."""
    allocated = peak_allocated_bytes(trial, geometry, dtype_bytes, text_tokens)
    return round(allocated * (1 + RESERVE)) + CONTEXT_BYTES


def peak_allocated_bytes(trial: Trial, geometry: Geometry, dtype_bytes: int, text_tokens: int) -> int:
    """Largest sum of weights and activations over the three stages of an image, on one device."""
    resident = _resident(trial, geometry, dtype_bytes)
    working = _activations(trial, geometry, dtype_bytes, text_tokens)
    return round(max(resident[stage] + working[stage] for stage in working))


def fits(peak_bytes: int, hardware: HardwareConfig) -> bool | None:
    """Whether a peak is within the profile's memory; None where the profile does not say how much there
    is."""
    return None if hardware.memory_gib is None else peak_bytes <= hardware.memory_gib * GIB


def _resident(trial: Trial, geometry: Geometry, dtype_bytes: int) -> dict[str, float]:
    """Bytes of weights on the device during each stage.

    none: everything. model: the component at work. sequential: its largest layer. group: the components'
    blocks by `num_blocks_per_group`, twice with a stream that fetches the next group meanwhile, and whatever
    is in no block; the VAE has no list of blocks and moves whole.
    """
    loaded: Weights = weights(geometry, dtype_bytes, trial.parallel)
    mode = trial.offload.mode
    if mode == "none":
        return dict.fromkeys(("text_encode", "denoise", "decode"), loaded.total)
    if mode == "model":
        return {"text_encode": loaded.text_encoder, "denoise": loaded.transformer, "decode": loaded.vae}
    encoder, transformer = geometry.text_encoder, geometry.transformer
    table = encoder.vocab_size * encoder.hidden_size * dtype_bytes
    if mode == "sequential":
        widest = transformer.dim * transformer.ffn_dim * dtype_bytes
        return {"text_encode": table, "denoise": widest, "decode": 0}
    group = trial.offload.num_blocks_per_group * (2 if trial.offload.use_stream else 1)
    layers = min(group, encoder.n_layers) / encoder.n_layers
    return {
        "text_encode": table + (loaded.text_encoder - table) * layers,
        "denoise": loaded.step(min(group, transformer.n_layers), transformer.n_layers),
        "decode": loaded.vae,
    }


def _activations(trial: Trial, geometry: Geometry, dtype_bytes: int, text_tokens: int) -> dict[str, float]:
    """Bytes alive at each stage's worst moment; sequence parallelism splits a step's, nothing splits the
    decode's."""
    pipeline, t, vae = trial.pipeline, geometry.transformer, geometry.vae
    batch = 2 if pipeline.guidance_scale > 0 else 1
    image = padded_tokens(geometry.image_tokens(pipeline.height, pipeline.width))
    tokens = batch * (image + padded_tokens(text_tokens)) / (trial.parallel.ulysses_size * trial.parallel.ring_size)
    kept = CACHE_TENSORS if isinstance(trial.cache, DBCacheConfig) else 0
    if isinstance(trial.cache, DBCacheConfig) and trial.cache.enable_taylorseer:
        kept += trial.cache.taylorseer_order
    ffn = FFN_TENSORS * t.ffn_dim / trial.parallel.tp_size
    decoded = pipeline.height * pipeline.width * vae.block_out_channels[min(1, len(vae.block_out_channels) - 1)]
    encoded = batch * pipeline.max_sequence_length * FFN_TENSORS * geometry.text_encoder.intermediate_size
    return {
        "text_encode": encoded * dtype_bytes,
        "denoise": tokens * (ffn + (HIDDEN_TENSORS + kept) * t.dim) * dtype_bytes,
        "decode": DECODE_TENSORS * decoded * dtype_bytes,
    }
