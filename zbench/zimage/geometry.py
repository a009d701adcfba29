"""The dimensions of a Z-Image pipeline, read from its folder's configs; it never builds a module."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADALN_DIM = 256
"""Width of the timestep embedding, unless `dim` is smaller (diffusers `transformer_z_image.ADALN_EMBED_DIM`)."""

SEQUENCE_MULTIPLE = 32
"""Image tokens and text tokens are each padded to a multiple of this (diffusers `SEQ_MULTI_OF`)."""


@dataclass(frozen=True, slots=True)
class TransformerGeometry:
    """`transformer/config.json`: the single-stream diffusion transformer."""

    dim: int
    """Width of the residual stream."""
    n_layers: int
    """Main blocks, over image and text tokens together; the ones DBCache may skip."""
    n_refiner_layers: int
    """Blocks of each refiner: the noise refiner (image tokens) and the context refiner (text tokens)."""
    n_heads: int
    """Attention heads; Ulysses and tensor parallelism must divide them."""
    cap_feat_dim: int
    """Width of a text embedding, the text encoder's hidden size."""
    in_channels: int
    """Latent channels."""
    patch_size: int
    """Latent pixels along one side of a token."""
    qk_norm: bool
    """Whether queries and keys pass an RMSNorm of `head_dim` weights."""
    axes_lens: tuple[int, ...] = (1024, 512, 512)
    """Positions of the rotary table: of text and then image, of rows and of columns, in tokens (diffusers' default)."""

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.n_heads

    @property
    def ffn_dim(self) -> int:
        """Hidden width of the SwiGLU feed-forward, as diffusers rounds it: `int(dim / 3 * 8)`."""
        return int(self.dim / 3 * 8)

    @property
    def adaln_dim(self) -> int:
        """Width of the timestep embedding that modulates every block."""
        return min(self.dim, ADALN_DIM)

    @property
    def patch_dim(self) -> int:
        """Latent values in one image token."""
        return self.patch_size**2 * self.in_channels


@dataclass(frozen=True, slots=True)
class TextEncoderGeometry:
    """`text_encoder/config.json`: a Qwen3 decoder without its language-model head."""

    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class VaeGeometry:
    """`vae/config.json`: the convolutional autoencoder (`AutoencoderKL`)."""

    block_out_channels: tuple[int, ...]
    """Channels by resolution, finest first."""
    layers_per_block: int
    """Residual blocks a resolution in the encoder; the decoder has one more."""
    latent_channels: int
    norm_num_groups: int
    mid_block_attention: bool
    """Whether the coarsest resolution has a one-head self-attention."""
    quant_conv: bool
    """Whether a 1x1 convolution follows the encoder."""
    post_quant_conv: bool
    """Whether a 1x1 convolution precedes the decoder."""
    scaling_factor: float
    shift_factor: float
    sample_size: int
    """Pixels along one side of a tile, where it decodes in tiles."""

    def tiles(self, height: int, width: int) -> int:
        """How many tiles diffusers decodes an image in where tiling is on; 1 is the whole image."""
        tile = self.sample_size // self.scale_factor
        sides = height // self.scale_factor, width // self.scale_factor
        if max(sides) <= tile:
            return 1
        apart = int(tile * 0.75)  # they overlap by a quarter
        return math.prod(-(-side // apart) for side in sides)

    @property
    def scale_factor(self) -> int:
        """Image pixels along one side of a latent pixel."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @classmethod
    def from_folder(cls, path: Path) -> VaeGeometry:
        """Read the geometry from the folder that holds the VAE's own `config.json`.

        Keys that official configs may leave out take the defaults of diffusers' `AutoencoderKL`. Raises as
        `Geometry.from_folder` does.
        """
        config = _Config(path / "config.json")
        return cls(
            block_out_channels=config.positives("block_out_channels"),
            layers_per_block=config.positive("layers_per_block"),
            latent_channels=config.positive("latent_channels"),
            norm_num_groups=config.positive("norm_num_groups"),
            mid_block_attention=config.flag("mid_block_add_attention", True),
            quant_conv=config.flag("use_quant_conv", True),
            post_quant_conv=config.flag("use_post_quant_conv", True),
            scaling_factor=config.number("scaling_factor"),
            shift_factor=config.number("shift_factor"),
            sample_size=config.positive("sample_size", 32),
        )


@dataclass(frozen=True, slots=True)
class Geometry:
    """Everything about a pipeline's size that its cost depends on."""

    transformer: TransformerGeometry
    text_encoder: TextEncoderGeometry
    vae: VaeGeometry

    @classmethod
    def from_folder(cls, path: Path) -> Geometry:
        """Read the geometry of a pipeline folder in the official diffusers layout.

        Raises `FileNotFoundError` naming the config that is missing, and `ValueError` naming the file and the key
        that is missing or of the wrong kind.
        """
        return cls(_transformer(path), _text_encoder(path), VaeGeometry.from_folder(path / "vae"))

    def image_tokens(self, height: int, width: int) -> int:
        """Image tokens of a `height` x `width` pixel image, before padding: (h/16)·(w/16) for Z-Image.

        Raises `ValueError` where a side is not a positive multiple of a token's side.
        """
        side = self.vae.scale_factor * self.transformer.patch_size
        for name, pixels in (("height", height), ("width", width)):
            if pixels <= 0 or pixels % side:
                raise ValueError(f"{name}={pixels}: must be a positive multiple of {side} pixels")
        return (height // side) * (width // side)


class _Config:
    """One JSON config whose values are asked for by key and kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing; a Z-Image pipeline folder has this file")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
        if type(values) is not dict:
            raise ValueError(f"{path}: must hold a JSON object, not {type(values).__name__}")
        self.values: dict[str, Any] = values

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise ValueError(f"{self.path}: key {key!r} is missing")
        return self.values[key]

    def positive(self, key: str, default: int | None = None) -> int:
        value = self._value(key) if default is None or key in self.values else default
        if type(value) is not int or value <= 0:
            raise ValueError(f"{self.path}: {key}={value!r} must be a positive integer")
        return value

    def positives(self, key: str) -> tuple[int, ...]:
        value = self._value(key)
        if not isinstance(value, list) or not value or not all(type(v) is int and v > 0 for v in value):
            raise ValueError(f"{self.path}: {key}={value!r} must be a list of positive integers")
        return tuple(value)

    def number(self, key: str) -> float:
        value = self._value(key)
        if type(value) not in (int, float):
            raise ValueError(f"{self.path}: {key}={value!r} must be a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if type(value) is not bool:
            raise ValueError(f"{self.path}: {key}={value!r} must be true or false")
        return value


def _transformer(folder: Path) -> TransformerGeometry:
    config = _Config(folder / "transformer" / "config.json")
    geometry = TransformerGeometry(
        dim=config.positive("dim"),
        n_layers=config.positive("n_layers"),
        n_refiner_layers=config.positive("n_refiner_layers"),
        n_heads=config.positive("n_heads"),
        cap_feat_dim=config.positive("cap_feat_dim"),
        in_channels=config.positive("in_channels"),
        patch_size=config.positives("all_patch_size")[0],
        qk_norm=config.flag("qk_norm", True),
        **({"axes_lens": config.positives("axes_lens")} if "axes_lens" in config.values else {}),
    )
    if geometry.dim % geometry.n_heads:
        raise ValueError(f"{config.path}: dim={geometry.dim} is not divisible by n_heads={geometry.n_heads}")
    if sum(config.positives("axes_dims")) != geometry.head_dim:
        raise ValueError(f"{config.path}: axes_dims must sum to dim/n_heads={geometry.head_dim}")
    return geometry


def _text_encoder(folder: Path) -> TextEncoderGeometry:
    config = _Config(folder / "text_encoder" / "config.json")
    return TextEncoderGeometry(
        hidden_size=config.positive("hidden_size"),
        n_layers=config.positive("num_hidden_layers"),
        n_heads=config.positive("num_attention_heads"),
        n_kv_heads=config.positive("num_key_value_heads"),
        head_dim=config.positive("head_dim"),
        intermediate_size=config.positive("intermediate_size"),
        vocab_size=config.positive("vocab_size"),
    )
