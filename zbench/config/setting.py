"""How the work is done, step skipping apart: the engine, sharding, offload and compute."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from zbench.config.group import Group
from zbench.config.ranges import number, one_of
from zbench.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16")
ROTATE_METHODS = ("p2p", "allgather")
GATHER_BY = ("auto", "collectives", "copies")
VAE_MODES = ("whole", "split", "tiled")
TEXT_ENCODER_MODES = ("whole", "tp")
LAYERS = ("split", "fused")
QKVS = ("split", "fused", "auto")
ROPES = ("complex", "real", "auto")
TEXTS = ("padded", "short", "compiled")
DECODES = ("eager", "channels_last", "compiled")
GRAPHS = ("none", "stages", "all", "auto")
QUANTIZATIONS = ("none", "fp8")
SCOPES = ("attention", "ffn", "both")
NORMS = ("split", "fused", "auto")
OFFLOAD_MODES = ("none", "text_encoder", "dit", "vae", "all", "group", "sequential")


@dataclass
class EngineConfig(Group):
    """What turns a prompt into an image."""

    name: str = MISSING
    target: str = MISSING  # class of its description: module:Class, or an entry point's name
    loads_weights: bool = True  # whether it loads pipeline.weights on this machine
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """What its description is made with."""
        return dict(self.options)

    @property
    def loads_here(self) -> bool:
        """Whether `pipeline.weights` must be on this machine."""
        return self.loads_weights


@dataclass
class ServedEngineConfig(EngineConfig):
    """An engine behind a server, which may be there already."""

    base_url: str | None = None  # where it listens, such as http://127.0.0.1:30000

    @property
    def arguments(self) -> dict[str, Any]:
        """What its description is made with."""
        return {**self.options, "base_url": self.base_url}

    @property
    def loads_here(self) -> bool:
        """Of a server that is there already nobody here loads anything."""
        return self.loads_weights and self.base_url is None


def engine_class(data: Mapping[str, Any]) -> type[EngineConfig]:
    """The class of an engine that a record holds."""
    return ServedEngineConfig if isinstance(data, Mapping) and "base_url" in data else EngineConfig


@dataclass
class ParallelConfig(Group):
    """Degrees of sharding; their product is the number of devices."""

    tp_size: int = number(1, 1, 1024)
    ulysses_size: int = number(1, 1, 1024)
    ring_size: int = number(1, 1, 1024)
    gather_size: int = number(1, 1, 1024)  # each device keeps its queries and gathers keys and values
    cfg_size: int = number(1, 1, 1024)  # guidance's two passes on two devices
    dp_size: int = number(1, 1, 1024)  # images side by side
    gather_by: str = "auto"  # collectives; copies: the GPUs' copy engines; auto: copies where they can
    ulysses_anything: bool = False  # cache-dit's Ulysses for tokens and heads that do not divide
    ulysses_async: bool = False  # exchange queries while keys are computed
    ring_rotate_method: str = "p2p"  # how keys and values travel
    vae: str = "whole"  # whole: on every device; split: rows over devices, exact; tiled: cache-dit's, another image
    text_encoder: str = "whole"  # whole: on every device; tp: split like the transformer


@dataclass
class OffloadConfig(Group):
    """Which weights wait in host memory while they are not computing."""

    mode: str = "none"
    pin_memory: bool = True  # page-locked host memory, which the device reads at the full rate of its link
    num_blocks_per_group: int = number(1, 1, 1000)  # group mode; more than one only without a stream
    use_stream: bool = True  # group mode: copy while computing, CUDA only
    keep_layers: int = number(0, 0, 1000)  # so many of the text encoder's first layers stay, where others wait


@dataclass
class ComputeConfig(Group):
    """Where and how the arithmetic is done."""

    device: str = "auto"  # auto: cuda where the hardware is a GPU, else cpu; a trial's is never auto
    dtype: str = "auto"  # auto: bfloat16 on a GPU, float32 on a CPU
    compile: bool = False  # torch.compile of the repeated transformer blocks
    graphs: str = "none"  # one launch each: stages: text encoding and decode; all: a forward too; auto: what pays
    qkv: str = "split"  # fused: queries, keys and values in one matmul; auto: that, where ranks do not send each
    rope: str = "complex"  # real: rotary positions in real numbers, which a compiler can fuse; auto: where it can be
    ffn: str = "split"  # fused: both halves of SwiGLU in one matmul
    text: str = "padded"  # short: a prompt's real tokens alone; compiled: these, by torch.compile
    decode: str = "eager"  # channels_last: the VAE's memory format; compiled: that, by torch.compile
    quantization: str = "none"  # fp8: torchao's, row-wise, weights and activations
    scope: str = "both"  # what is quantised: attention projections, ffn, both
    norms: str = "split"  # fused: norm, modulation and rounding to FP8 as one kernel; auto: that, where all is there
    attention_backend: str = "native"  # a name diffusers' set_attention_backend knows


def check_engine(engine: EngineConfig) -> None:
    """Raise ConfigError for an option that has a key of its own."""
    if isinstance(engine, ServedEngineConfig) and "base_url" in engine.options:
        raise ConfigError("engine.options.base_url", "…", "has a key of its own; use engine.base_url")


def check_parallel(parallel: ParallelConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    one_of("parallel.ring_rotate_method", parallel.ring_rotate_method, ROTATE_METHODS)
    one_of("parallel.gather_by", parallel.gather_by, GATHER_BY)
    one_of("parallel.vae", parallel.vae, VAE_MODES)
    one_of("parallel.text_encoder", parallel.text_encoder, TEXT_ENCODER_MODES)


def check_offload(offload: OffloadConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    one_of("offload.mode", offload.mode, OFFLOAD_MODES)
    if offload.use_stream and offload.num_blocks_per_group > 1:
        problem = "a stream copies one block ahead; add offload.use_stream=false"
        raise ConfigError("offload.num_blocks_per_group", offload.num_blocks_per_group, problem)


def check_compute(compute: ComputeConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    one_of("compute.device", compute.device, DEVICES)
    one_of("compute.dtype", compute.dtype, DTYPES)
    one_of("compute.graphs", compute.graphs, GRAPHS)
    one_of("compute.qkv", compute.qkv, QKVS)
    one_of("compute.rope", compute.rope, ROPES)
    one_of("compute.ffn", compute.ffn, LAYERS)
    one_of("compute.text", compute.text, TEXTS)
    one_of("compute.decode", compute.decode, DECODES)
    one_of("compute.quantization", compute.quantization, QUANTIZATIONS)
    one_of("compute.scope", compute.scope, SCOPES)
    one_of("compute.norms", compute.norms, NORMS)
