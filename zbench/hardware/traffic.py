"""Bytes that a trial moves between devices and between host and device; it refuses to say how long they
take."""

from dataclasses import dataclass, replace

from zbench.config import OffloadConfig
from zbench.methods import offload as modes
from zbench.methods.parallel import ParallelDims
from zbench.zimage.flops import padded_tokens, parameters
from zbench.zimage.geometry import Geometry


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of each component's weights on one device, all resident."""

    text_encoder: int
    text_encoder_table: int
    """Of the text encoder: its table of tokens, which is in no layer."""
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


def weights(geometry: Geometry, dtype_bytes: int, dims: ParallelDims, *, text_encoder_over: int = 1) -> WeightBytes:
    """Tensor parallelism splits the attention and the feed-forward of the transformer's blocks; what modulates them and
    what is outside of them is whole on every device. Sequence parallelism splits no weights.

    The text encoder's layers are split over `text_encoder_over` devices, its table of tokens is not; the VAE is whole.
    """
    count, t, encoder = parameters(geometry), geometry.transformer, geometry.text_encoder
    of_block = 4 * t.dim**2 + 3 * t.dim * t.ffn_dim  # queries, keys, values and output; SwiGLU
    refiners = 2 * t.n_refiner_layers
    gone = of_block * (dims.tp - 1) / dims.tp
    table = encoder.vocab_size * encoder.hidden_size
    return WeightBytes(
        text_encoder=round((table + (count.text_encoder - table) / text_encoder_over) * dtype_bytes),
        text_encoder_table=table * dtype_bytes,
        transformer=round((count.transformer - gone * (t.n_layers + refiners)) * dtype_bytes),
        transformer_outside_blocks=round((outside_block_parameters(geometry) - gone * refiners) * dtype_bytes),
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


def text_transfer_bytes(offload: OffloadConfig, resident: WeightBytes, text_layers: int, used: int) -> float:
    """Bytes over the host link for an image's prompts, where the text encoder waits on the host, else 0.

    Of its `text_layers` layers those come that are `used`, the first ones, but for those that are kept on the device;
    its table of tokens does not, where that stays on the host: the some hundred rows that a prompt needs are left out.
    """
    mode = modes.BY_NAME[offload.mode]
    if "text_encoder" not in mode.waiting:
        return 0.0
    layers = resident.text_encoder - resident.text_encoder_table
    if mode.streams_text:
        return layers * max(0, used - offload.keep_layers) / text_layers
    return (resident.text_encoder_table + layers * used / text_layers) * _trips(offload)


def whole_transfer_bytes(offload: OffloadConfig, resident: WeightBytes) -> float:
    """Bytes over the host link for an image of what else waits there and comes once: the VAE, and the transformer where
    it does not come by layers in every step."""
    mode = modes.BY_NAME[offload.mode]
    once = [part for part in mode.waiting if part == "vae" or (part == "transformer" and not mode.by_layers)]
    return float(sum(getattr(resident, part) for part in once) * _trips(offload))


def step_transfer_bytes(offload: OffloadConfig, step_weights: float) -> float:
    """Bytes over the host link in one step whose blocks and surroundings weigh `step_weights`."""
    return step_weights * _trips(offload) if modes.BY_NAME[offload.mode].by_layers else 0.0


def _trips(offload: OffloadConfig) -> int:
    """Copies each weight makes per use: there, and back where the host's copy was not kept."""
    return 2 if modes.copies_back(offload) else 1
