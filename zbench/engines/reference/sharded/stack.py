"""What cache-dit shards: tensor parallelism, Ulysses and ring, on meshes of ours, so that guidance can be split too.

Its planners say which layers are split and where tokens are. `enable_parallelism` is gone round: it would
make meshes of all ranks there are.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from cache_dit.attention import _maybe_register_custom_attn_backends
from cache_dit.attention.backends.register import _AttnBackendRegistry
from cache_dit.distributed import ParallelismConfig
from cache_dit.distributed.autoencoders.autoencoder_kl import AutoencoderKLDataParallelismPlanner
from cache_dit.distributed.core import _ContextParallelConfig, _ContextParallelInput, _enable_context_parallelism
from cache_dit.distributed.core._context_parallel import _ContextParallelSplitHook, _remove_context_parallel
from cache_dit.distributed.core._hooks import HookRegistry
from cache_dit.distributed.text_encoders.qwen3 import Qwen3TensorParallelismPlanner
from cache_dit.distributed.transformers.zimage import (
    ZImageContextParallelismPlanner,
    ZImageTensorParallelismPlanner,
)
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import Attention
from torch import nn

from zbench.config import ParallelConfig
from zbench.engines.reference.sharded.mesh import Mesh
from zbench.errors import ConfigError
from zbench.methods.parallel import share, spreads_heads

KERNELS = {"_native_cudnn": "_sdpa_cudnn"}
"""cache-dit's names of kernels that diffusers calls otherwise."""


class ShardedTokens:
    """A transformer whose tokens are spread by Ulysses and ring, until `close`."""

    def __init__(self, transformer: Any, parallel: ParallelConfig, mesh: Mesh) -> None:
        """Raises ConfigError for what cache-dit does not have, or does wrongly.

        A kernel that diffusers was told to use (`set_attention_backend`, before) becomes cache-dit's of that name.
        """
        _refuse(transformer.config.n_heads // mesh.dims.tp, parallel)
        _maybe_register_custom_attn_backends()
        self._kernels = [(m.processor, m.processor._attention_backend) for m in _attentions(transformer)]
        options: dict[str, Any] = {
            "ulysses_anything": parallel.ulysses_anything,
            "ulysses_async": parallel.ulysses_async,
        }
        degrees = {"ulysses": parallel.ulysses_size, "ring": parallel.ring_size}
        try:
            self._config = _ContextParallelConfig(
                ulysses_degree=degrees["ulysses"],
                ring_degree=degrees["ring"],
                rotate_method=parallel.ring_rotate_method,
                **options,
            )
        except NotImplementedError as error:
            raise ConfigError("parallel.ring_rotate_method", parallel.ring_rotate_method, str(error)) from error
        except ValueError as error:
            raise ConfigError("parallel.ulysses_anything", parallel.ulysses_anything, str(error)) from error
        part = mesh.part("ring", "ulysses")
        ranks = mesh.dims.ring * mesh.dims.ulysses
        place = mesh.place("ring") * mesh.dims.ulysses + mesh.place("ulysses")
        self._config.setup(rank=place, world_size=ranks, device=torch.device(part.device_type), mesh=part)
        self._transformer = transformer
        told = ParallelismConfig(
            ulysses_size=degrees["ulysses"],
            ring_size=degrees["ring"],
            ring_rotate_method=parallel.ring_rotate_method,
            **options,
        )
        self._plan = _whole_plan(transformer, told)
        for processor, kernel in self._kernels:
            processor._attention_backend = kernel_of(kernel, parallel.ring_size)
        _enable_context_parallelism(transformer, config=self._config, cp_plan=self._plan)
        _read_signatures(transformer)

    def close(self) -> None:
        """Leave the transformer as it was."""
        _remove_context_parallel(self._transformer, self._plan)
        for processor, kernel in self._kernels:
            processor._attention_backend = kernel
        for module in self._transformer.modules():
            holder: Any
            for holder in (module, getattr(module, "processor", None)):
                if getattr(holder, "_cp_config", None) is self._config:
                    holder._cp_config = holder._parallel_config = None


def _attentions(transformer: nn.Module) -> list[Any]:
    return [module for module in transformer.modules() if isinstance(module, Attention)]


def kernel_of(diffusers_own: str | None, ring: int) -> AttentionBackendName:
    """cache-dit's kernel for one of diffusers'; None is the native one. Raises ConfigError where there is none."""
    asked = AttentionBackendName(diffusers_own or "native").value
    name = KERNELS.get(asked, asked)
    there = sorted(set(_AttnBackendRegistry.list_context_parallel_backends()))
    if name not in there:
        spelled = ", ".join(sorted({"native", *KERNELS, *there} - set(KERNELS.values())))
        problem = f"Ulysses and ring have cache-dit's kernels: {spelled}"
        raise ConfigError("compute.attention_backend", asked, problem)
    if ring > 1 and name == "_sdpa_cudnn":
        problem = f"it does not return the log-sum-exp, which ring_size={ring} merges with; native does"
        raise ConfigError("compute.attention_backend", asked, problem)
    return AttentionBackendName(name)


def _refuse(heads: int, parallel: ParallelConfig) -> None:
    """What cache-dit would only assert on in the first forward, or not at all; `heads` are those that tp leaves."""
    ulysses, ring = parallel.ulysses_size, parallel.ring_size
    if parallel.ulysses_async and ring > 1:  # it would leave the keys of other ranks out without a word
        raise ConfigError("parallel.ulysses_async", True, f"it forgets ring_size={ring}: set ulysses_async=false")
    if not spreads_heads(heads, ulysses):
        padded = share(heads, ulysses) * ulysses
        problem = f"of {heads} heads padded to {padded}, a device would have none but padding: take fewer devices"
        raise ConfigError("parallel.ulysses_size", ulysses, problem)


def _whole_plan(transformer: Any, told: ParallelismConfig) -> dict[str, Any]:
    """cache-dit's plan of where tokens are split and gathered.

    It names the first and the last layer of a refiner. Where they are one, the gathering has taken the splitting's
    place, which is put back.
    """
    plan: dict[str, Any] = ZImageContextParallelismPlanner().apply(transformer=transformer, parallelism_config=told)
    for refiner in ("noise_refiner", "context_refiner"):
        if len(getattr(transformer, refiner)) == 1:
            splitting = {"x": _ContextParallelInput(split_dim=1, expected_dims=3)}
            plan[f"{refiner}.0"] = [splitting, plan[f"{refiner}.0"]]
    return plan


def _read_signatures(transformer: nn.Module) -> None:
    """Hooks read the signatures of their modules now, and not while a compiler traces them, which it cannot."""
    for module in transformer.modules():
        registry = getattr(module, HookRegistry._registry_attr, None)
        for hook in registry.hooks.values() if registry is not None else ():
            if isinstance(hook, _ContextParallelSplitHook):
                parameters = list(inspect.signature(type(module).forward).parameters)[1:]
                places = {parameter: place for place, parameter in enumerate(parameters)}
                hook.module_forward_metadata.cached_parameter_indices = places


def split_weights(transformer: Any, mesh: Mesh) -> None:
    """Keep this rank's part of the attention's heads and of the feed-forward's columns; the rest is given back.

    There is no way back: who wants whole weights loads them again. Raises ConfigError where heads or columns do not
    divide, and for an adapter's layers, which are no plain linear ones.
    """
    ranks = mesh.dims.tp
    if getattr(transformer, "peft_config", None):
        problem = "an adapter's layers cannot be split: set pipeline.lora_fused=true"
        raise ConfigError("parallel.tp_size", ranks, problem)
    columns = transformer.layers[0].feed_forward.w1.out_features
    for what, count in (("heads", transformer.config.n_heads), ("feed-forward columns", columns)):
        if count % ranks:
            raise ConfigError("parallel.tp_size", ranks, f"{count} {what} are not divisible by {ranks}")
    ZImageTensorParallelismPlanner().parallelize_transformer(transformer=transformer, tp_mesh=mesh.part("tp"))


def split_text_encoder(text_encoder: nn.Module, mesh: Mesh) -> None:
    """Split a Qwen3 over all ranks of the replica, for all of them encode the same texts. There is no way back.

    Raises ConfigError where its heads do not divide.
    """
    ranks, size = mesh.world_size, text_encoder.config
    for what in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        if getattr(size, what) % ranks:
            raise ConfigError(
                "parallel.text_encoder",
                "tp",
                f"{what}={getattr(size, what)} of the text encoder is not "
                f"divisible by {ranks} devices; parallel.text_encoder=whole is",
            )
    Qwen3TensorParallelismPlanner().parallelize_text_encoder(text_encoder=text_encoder, tp_mesh=mesh.whole())


class SharedTiles:
    """A VAE that decodes in tiles, each rank some of them, until `close`. The image is another than whole decode's."""

    def __init__(self, vae: Any, mesh: Mesh) -> None:
        """`vae`: diffusers' AutoencoderKL."""
        self._vae, self._tiled = vae, vae.use_tiling
        AutoencoderKLDataParallelismPlanner().parallelize_tiling(auto_encoder=vae, dp_mesh=mesh.whole())

    def close(self) -> None:
        """Leave the VAE as it was."""
        del self._vae._tiled_encode, self._vae.tiled_decode
        self._vae.use_tiling = self._tiled
