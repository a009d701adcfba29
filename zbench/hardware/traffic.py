"""Bytes that a trial moves between devices and between host and device; it refuses to say how long they
take."""

from dataclasses import dataclass, replace

from zbench.config import OffloadConfig, ParallelConfig
from zbench.zimage.flops import padded_tokens, parameters
from zbench.zimage.geometry import Geometry


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of each component's weights on one device, all resident."""

    text_encoder: int
    transformer: int
    transformer_outside_blocks: int
    vae: int

    def step(self, blocks: int, n_layers: int) -> float:
        """Bytes of the transformer that a forward through `blocks` of its `n_layers` main blocks touches."""
        main = self.transformer - self.transformer_outside_blocks
        return self.transformer_outside_blocks + main * blocks / n_layers

    @property
    def total(self) -> int:
        return self.text_encoder + self.transformer + self.vae


def weights(geometry: Geometry, dtype_bytes: int, parallel: ParallelConfig) -> WeightBytes:
    """Tensor parallelism splits the transformer (its norms, which it does not split, are 0.02 % of it);
    sequence parallelism splits no weights; text encoder and VAE are whole on every device."""
    count = parameters(geometry)
    tp = parallel.tp_size
    return WeightBytes(
        text_encoder=count.text_encoder * dtype_bytes,
        transformer=count.transformer * dtype_bytes // tp,
        transformer_outside_blocks=outside_block_parameters(geometry) * dtype_bytes // tp,
        vae=(count.vae_decoder + count.vae_encoder) * dtype_bytes,
    )


def outside_block_parameters(geometry: Geometry) -> int:
    """Transformer weights outside its main blocks: embedders, refiners, final layer."""
    return parameters(replace(geometry, transformer=replace(geometry.transformer, n_layers=0))).transformer


def block_tokens(geometry: Geometry, image_tokens: int, text_tokens: int, blocks: int) -> int:
    """Tokens that pass a block, summed over the blocks a forward runs: main blocks over both kinds of token,
    each refiner over its own."""
    both = padded_tokens(image_tokens) + padded_tokens(text_tokens)
    return both * (blocks + geometry.transformer.n_refiner_layers)


def exchange_bytes(parallel: ParallelConfig, hidden_bytes: float) -> float:
    """Bytes one device sends in the blocks of a forward whose unsharded hidden states add up to
    `hidden_bytes` (`block_tokens` x dim x dtype).

    With s = ulysses x ring devices over the sequence and tp over the heads, a block sends of its hidden state
    - tensor parallelism: two all-reduces, each 2(tp-1)/tp (ring algorithm, Patarasu and Yuan 2009), over 1/s;
    - Ulysses: four all-to-alls (q, k, v and the output), each (u-1)/u, over 1/(s tp) (Jacobs et al. 2023);
    - ring: keys and values r-1 times, over 1/(s tp) (Liu et al. 2023), counted as not hidden behind
      arithmetic.
    """
    tp, ulysses, ring = parallel.tp_size, parallel.ulysses_size, parallel.ring_size
    sequence = ulysses * ring
    all_reduce = 2 * 2 * (tp - 1) / tp / sequence
    all_to_all = 4 * (ulysses - 1) / ulysses / (sequence * tp)
    key_value = 2 * (ring - 1) / (sequence * tp)
    return hidden_bytes * (all_reduce + all_to_all + key_value)


def image_transfer_bytes(offload: OffloadConfig, resident: WeightBytes) -> float:
    """Bytes over the host link for an image, outside its steps: every component that waits on the host comes once.

    sequential and group: text encoder and VAE here, the transformer in every step.
    """
    once = {
        "none": 0,
        "text_encoder": resident.text_encoder,
        "dit": resident.transformer,
        "vae": resident.vae,
        "all": resident.total,
        "group": resident.text_encoder + resident.vae,
        "sequential": resident.text_encoder + resident.vae,
    }
    return float(once[offload.mode] * _trips(offload))


def step_transfer_bytes(offload: OffloadConfig, step_weights: float) -> float:
    """Bytes over the host link in one step whose blocks and surroundings weigh `step_weights`."""
    return step_weights * _trips(offload) if offload.mode in ("sequential", "group") else 0.0


def _trips(offload: OffloadConfig) -> int:
    """Copies each weight makes per use: diffusers' groups without a stream copy back, the other modes keep the
    host's copy and drop the device's."""
    return 2 if offload.mode == "group" and not offload.use_stream else 1
