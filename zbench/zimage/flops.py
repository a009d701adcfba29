"""Closed-form parameter and FLOP counts of a Z-Image pipeline; it counts what runs and never says how long it takes.

One multiply-add is two FLOPs. Counted are matrix products, convolutions and attention, which is what
`torch.utils.flop_counter` counts; norms, activations, RoPE and other element-wise work are not. Every count is for a
batch of one without classifier-free guidance. The shapes are those of diffusers 0.42 (`ZImageTransformer2DModel`,
`AutoencoderKL`) and of transformers' `Qwen3Model`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from zbench.zimage.geometry import SEQUENCE_MULTIPLE, Geometry, TransformerGeometry, VaeGeometry

TIMESTEP_FREQUENCIES = 256
"""Sinusoids a timestep is embedded with (diffusers `TimestepEmbedder.frequency_embedding_size`)."""

TIMESTEP_HIDDEN = 1024
"""Hidden width of the timestep MLP (diffusers passes `mid_size=1024`)."""

MAX_SEQUENCE_LENGTH = 512
"""Tokens every prompt is padded to before the text encoder (default of `ZImagePipeline.__call__`)."""

TEXT_BUCKET = 64
"""Tokens that a prompt is padded to a multiple of where the text encoder reads its real tokens alone.

Each bucket and batch is a shape to compile and to capture: 512 tokens make 8. Qwen3-4B reads 7.1 GB of weights, 2.1 ms
on an H100, and a token costs 7.1 GFLOP, 10 µs: up to some 200 tokens weights decide, beyond them padding costs at most
63 × 10 µs. It is also the rows that an H100's matrix instruction takes at once (wgmma m64): less would save nothing.
"""

RGB = 3


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations, split by the kind of kernel that does them."""

    gemm: int
    """In matrix products and convolutions."""
    attention: int
    """In the two products of scaled dot-product attention: QK' and PV."""

    @property
    def total(self) -> int:
        return self.gemm + self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.gemm + other.gemm, self.attention + other.attention)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.gemm * times, self.attention * times)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Weights of each component; multiply by the bytes of a dtype for their size in memory."""

    text_encoder: int
    transformer: int
    vae_decoder: int
    vae_encoder: int
    """Loaded with the VAE although text-to-image never runs it."""

    @property
    def total(self) -> int:
        return self.text_encoder + self.transformer + self.vae_decoder + self.vae_encoder


@cache
def parameters(geometry: Geometry) -> Parameters:
    """Weights of every component, biases and norms included."""
    vae = geometry.vae
    return Parameters(
        text_encoder=_text_encoder_parameters(geometry),
        transformer=_transformer_parameters(geometry.transformer),
        vae_decoder=sum(layer.parameters for layer in _decoder(vae, 1, 1)),
        vae_encoder=sum(layer.parameters for layer in _encoder(vae)),
    )


def padded_tokens(tokens: int) -> int:
    """`tokens` rounded up to the multiple of 32 the transformer pads image and text to, each on its own."""
    return -(-tokens // SEQUENCE_MULTIPLE) * SEQUENCE_MULTIPLE


def main_block_flops(geometry: Geometry, image_tokens: int, text_tokens: int) -> Flops:
    """One main block over image and text tokens together (unpadded counts in, padded ones counted)."""
    return _block(geometry.transformer, padded_tokens(image_tokens) + padded_tokens(text_tokens), modulated=True)


def outside_blocks_flops(geometry: Geometry, image_tokens: int, text_tokens: int) -> Flops:
    """Everything of one forward but the main blocks: embedders, both refiners, the final layer.

    DBCache never skips any of it.
    """
    t = geometry.transformer
    image, text = padded_tokens(image_tokens), padded_tokens(text_tokens)
    refiners = (_block(t, image, modulated=True) + _block(t, text, modulated=False)) * t.n_refiner_layers
    timestep = TIMESTEP_FREQUENCIES * TIMESTEP_HIDDEN + TIMESTEP_HIDDEN * t.adaln_dim
    embedders = image * t.patch_dim * t.dim + text * t.cap_feat_dim * t.dim
    final = (image + text) * t.dim * t.patch_dim + t.adaln_dim * t.dim
    return refiners + Flops(2 * (timestep + embedders + final), 0)


def step_flops(geometry: Geometry, image_tokens: int, text_tokens: int, blocks: int | None = None) -> Flops:
    """One transformer forward that runs `blocks` of the main blocks; all of them by default.

    A step that DBCache takes from its cache runs `Fn_compute_blocks + Bn_compute_blocks`. `image_tokens` is
    `Geometry.image_tokens(height, width)`, `text_tokens` what the prompt has after the chat template; both before
    padding. Raises `ValueError` where `blocks` is not between 0 and `n_layers` or a count of tokens is not positive.
    """
    n_layers = geometry.transformer.n_layers
    blocks = n_layers if blocks is None else blocks
    if not 0 <= blocks <= n_layers:
        raise ValueError(f"blocks={blocks}: must be between 0 and the {n_layers} main blocks")
    if image_tokens <= 0 or text_tokens <= 0:
        raise ValueError(f"image_tokens={image_tokens}, text_tokens={text_tokens}: both must be positive")
    outside = outside_blocks_flops(geometry, image_tokens, text_tokens)
    return outside + main_block_flops(geometry, image_tokens, text_tokens) * blocks


def bucketed_tokens(tokens: int) -> int:
    """`tokens` rounded up to a multiple of TEXT_BUCKET."""
    return -(-tokens // TEXT_BUCKET) * TEXT_BUCKET


def text_encoder_flops(geometry: Geometry, tokens: int = MAX_SEQUENCE_LENGTH, layers: int | None = None) -> Flops:
    """One pass of the text encoder over `tokens` tokens, padding included, through `layers` layers; None: all.

    diffusers pads every prompt to `max_sequence_length`, so that, not the prompt's own length, is what runs.
    """
    e = geometry.text_encoder
    queries, keys = e.n_heads * e.head_dim, e.n_kv_heads * e.head_dim
    layer = e.hidden_size * (2 * queries + 2 * keys + 3 * e.intermediate_size)
    return Flops(2 * tokens * layer, 4 * tokens**2 * queries) * (e.n_layers if layers is None else layers)


@lru_cache
def vae_decode_flops(geometry: Geometry, height: int, width: int) -> Flops:
    """One decode to a `height` x `width` pixel image.

    Raises `ValueError` where a side is not a multiple of a token's side.
    """
    geometry.image_tokens(height, width)
    scale = geometry.vae.scale_factor
    total = Flops(0, 0)
    for layer in _decoder(geometry.vae, height // scale, width // scale):
        total += layer.flops
    return total


def _block(t: TransformerGeometry, tokens: int, *, modulated: bool) -> Flops:
    """A transformer block: attention projections, SwiGLU, and the modulation, which is one row a block."""
    linear = tokens * (4 * t.dim**2 + 3 * t.dim * t.ffn_dim)
    modulation = t.adaln_dim * 4 * t.dim if modulated else 0
    return Flops(2 * (linear + modulation), 4 * tokens**2 * t.dim)


def _transformer_parameters(t: TransformerGeometry) -> int:
    norms = 4 * t.dim + (2 * t.head_dim if t.qk_norm else 0)
    plain = 4 * t.dim**2 + 3 * t.dim * t.ffn_dim + norms
    modulated = plain + (t.adaln_dim + 1) * 4 * t.dim
    blocks = (t.n_layers + t.n_refiner_layers) * modulated + t.n_refiner_layers * plain
    timestep = (TIMESTEP_FREQUENCIES + 1) * TIMESTEP_HIDDEN + (TIMESTEP_HIDDEN + 1) * t.adaln_dim
    image = (t.patch_dim + 1) * t.dim
    text = t.cap_feat_dim + (t.cap_feat_dim + 1) * t.dim
    final = (t.dim + 1) * t.patch_dim + (t.adaln_dim + 1) * t.dim
    pad_tokens = 2 * t.dim
    return blocks + timestep + image + text + final + pad_tokens


def _text_encoder_parameters(geometry: Geometry) -> int:
    e = geometry.text_encoder
    queries, keys = e.n_heads * e.head_dim, e.n_kv_heads * e.head_dim
    linear = e.hidden_size * (2 * queries + 2 * keys + 3 * e.intermediate_size)
    norms = 2 * e.hidden_size + 2 * e.head_dim
    return e.vocab_size * e.hidden_size + e.n_layers * (linear + norms) + e.hidden_size


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of the VAE: its weights and what one pass over it costs."""

    parameters: int
    flops: Flops = Flops(0, 0)


def _norm(channels: int) -> _Layer:
    return _Layer(2 * channels)


def _conv(c_in: int, c_out: int, pixels: int, kernel: int = 3) -> _Layer:
    """`pixels` is the output's area."""
    weights = kernel**2 * c_in * c_out
    return _Layer(weights + c_out, Flops(2 * weights * pixels, 0))


def _resnet(c_in: int, c_out: int, pixels: int) -> Iterator[_Layer]:
    yield from (_norm(c_in), _conv(c_in, c_out, pixels), _norm(c_out), _conv(c_out, c_out, pixels))
    if c_in != c_out:
        yield _conv(c_in, c_out, pixels, kernel=1)


def _middle(vae: VaeGeometry, pixels: int) -> Iterator[_Layer]:
    """Two residual blocks around a one-head self-attention over all `pixels` of the coarsest resolution."""
    channels = vae.block_out_channels[-1]
    yield from _resnet(channels, channels, pixels)
    if vae.mid_block_attention:
        yield _norm(channels)
        yield from [_conv(channels, channels, pixels, kernel=1)] * 4
        yield _Layer(0, Flops(0, 4 * pixels**2 * channels))
    yield from _resnet(channels, channels, pixels)


def _decoder(vae: VaeGeometry, latent_height: int, latent_width: int) -> Iterator[_Layer]:
    pixels = latent_height * latent_width
    channels = vae.block_out_channels[-1]
    if vae.post_quant_conv:
        yield _conv(vae.latent_channels, vae.latent_channels, pixels, kernel=1)
    yield _conv(vae.latent_channels, channels, pixels)
    yield from _middle(vae, pixels)
    for level, c_out in enumerate(reversed(vae.block_out_channels)):
        if level:
            pixels *= 4
            yield _conv(channels, channels, pixels)  # after upsampling
        for _ in range(vae.layers_per_block + 1):
            yield from _resnet(channels, c_out, pixels)
            channels = c_out
    yield _norm(channels)
    yield _conv(channels, RGB, pixels)


def _encoder(vae: VaeGeometry) -> Iterator[_Layer]:
    """The encoder's weights; text-to-image never runs it, so its layers cost no FLOPs here."""
    channels = vae.block_out_channels[0]
    yield _conv(RGB, channels, 0)
    for level, c_out in enumerate(vae.block_out_channels):
        for _ in range(vae.layers_per_block):
            yield from _resnet(channels, c_out, 0)
            channels = c_out
        if level < len(vae.block_out_channels) - 1:
            yield _conv(channels, channels, 0)  # downsampling
    yield from _middle(vae, 0)
    yield _norm(channels)
    yield _conv(channels, 2 * vae.latent_channels, 0)
    if vae.quant_conv:
        yield _conv(2 * vae.latent_channels, 2 * vae.latent_channels, 0, kernel=1)
