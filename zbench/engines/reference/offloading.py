"""Keeps weights in host memory while they do not compute, and counts what is copied to the device; it loads nothing.

The host's copy stays what it is: weights are copied to the device before they compute and dropped there after it, never
copied back but for groups without a stream. diffusers' model offload copies back, and its streamed groups bring a text
encoder of 7.5 GiB in 0.32 s where this takes 0.17 (reports/h100/offload), so its groups serve mode group alone.

| mode | what waits on the host, and when it comes |
|---|---|
| text_encoder | the text encoder, layer by layer, one ahead of use; its table of tokens stays, and rows of it come |
| dit | the transformer, whole, before the first step; it leaves before the decode |
| vae | the VAE, whole, for the decode |
| all | all three, each as above |
| group | every layer of every component, fetched ahead by a stream (diffusers) |
| sequential | every weight on its own, by accelerate's hooks |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn

from zbench.config import OffloadConfig
from zbench.engines.reference.host_copy import HostCopy
from zbench.engines.reference.layers_ahead import LayersAhead
from zbench.errors import ConfigError
from zbench.methods.offload import BY_NAME, COMPONENTS
from zbench.zimage.fast.transfer import received, sent


class Offloading:
    """The offload mode of one pipeline, for as long as the pipeline lives."""

    def __init__(self, pipe: Any, config: OffloadConfig, device: str) -> None:
        """`pipe` is a diffusers `ZImagePipeline`; what does not wait on the host must be on `device` already."""
        self._device = torch.device(device)
        on_gpu = self._device.type == "cuda"
        self._mode, self._pin = config.mode, config.pin_memory and on_gpu
        self._stream = config.use_stream and on_gpu
        self._moved: Counter[str] = Counter()
        self._copies: list[HostCopy] = []
        self._ahead: LayersAhead | None = None
        _refuse_packed(pipe, config.mode)
        if config.mode == "sequential":
            for component in COMPONENTS:
                module = getattr(pipe, component)
                _pin(module, self._pin)
                self._count_layers(component, module)
            pipe.enable_sequential_cpu_offload(device=self._device)
        elif config.mode == "group":
            for component in COMPONENTS:
                self._in_groups(component, getattr(pipe, component), config.num_blocks_per_group)
        else:
            waiting = BY_NAME[config.mode].waiting
            if "text_encoder" in waiting:
                self._one_layer_at_a_time("text_encoder", pipe.text_encoder, config.keep_layers)
            transformer = self._whole(pipe.transformer) if "transformer" in waiting else None
            vae = self._whole(pipe.vae) if "vae" in waiting else None
            if transformer is not None:
                pipe.transformer.register_forward_pre_hook(self._fetching("transformer", transformer))
            if transformer is not None or vae is not None:
                pipe.vae.decode = self._between(pipe.vae.decode, transformer, vae)

    def reset(self) -> None:
        """An image is about to be made: what was moved is counted anew, and what a failed one left there goes."""
        self._moved.clear()
        if self._ahead is not None:
            self._ahead.end()
        for copy in self._copies:
            copy.drop()

    @property
    def pin_memory(self) -> bool | None:
        """Whether what waits lies in page-locked memory; None where nothing waits."""
        return None if self._mode == "none" else self._pin

    @property
    def moved_bytes(self) -> dict[str, int] | None:
        """By component, what the last image had copied to the device; None where nothing waits."""
        if self._mode == "none":
            return None
        return {component: self._moved[component] for component in COMPONENTS if self._moved[component]}

    def _whole(self, module: nn.Module) -> HostCopy:
        return self._host_copy(_tensors(module))

    def _host_copy(self, tensors: list[Tensor]) -> HostCopy:
        self._copies.append(HostCopy(tensors, self._device, pin=self._pin))
        return self._copies[-1]

    def _one_layer_at_a_time(self, component: str, module: nn.Module, kept: int) -> None:
        """Each layer but the first `kept` comes before it computes and leaves after it; what is outside of layers comes
        and leaves with the module, but for the table of tokens."""
        layers, table = _layers(module), _own_table(module)
        if kept > len(layers):
            raise ConfigError("offload.keep_layers", kept, f"only {len(layers)} of its layers come one by one")
        elsewhere = {id(tensor) for layer in layers for tensor in _tensors(layer)}
        if table is not None:
            elsewhere.add(id(table.weight))
            self._look_up_on_the_host(component, table)
        for tensor in (tensor for layer in layers[:kept] for tensor in _tensors(layer)):
            tensor.data = tensor.data.to(self._device)
        copies = {layer: self._host_copy(_tensors(layer)) for layer in layers[kept:]}
        if copies and self._device.type == "cuda":
            self._one_ahead(component, module, copies)
            copies = {}
        copies[module] = self._host_copy([tensor for tensor in _tensors(module) if id(tensor) not in elsewhere])
        for part, copy in copies.items():
            part.register_forward_pre_hook(self._fetching(component, copy))
            part.register_forward_hook(_calling(copy.drop))

    def _one_ahead(self, component: str, module: nn.Module, copies: Mapping[nn.Module, HostCopy]) -> None:
        """While one of the module's layers computes the next one comes."""
        self._ahead = ahead = LayersAhead(max(copy.nbytes for copy in copies.values()), self._device)

        def need(copy: HostCopy) -> None:
            ahead.need(copy)
            self._moved[component] += copy.nbytes

        module.register_forward_pre_hook(_calling(ahead.begin))
        for layer, copy in copies.items():
            layer.register_forward_pre_hook(_calling(partial(need, copy)))
            layer.register_forward_hook(_calling(partial(ahead.done, copy)))
        module.register_forward_hook(_calling(ahead.end))

    def _look_up_on_the_host(self, component: str, table: nn.Embedding) -> None:
        """Let a table stay in host memory: a prompt needs some hundred of its rows, which alone come to the device.

        The host waits for the ids. A lookup copies rows, so they are the same to the bit.
        """
        table.weight.data = table.weight.data.cpu()

        def send(_table: nn.Module, _ids: object, rows: Tensor) -> Tensor:
            self._moved[component] += rows.nbytes
            return sent(rows, self._device)

        table.register_forward_pre_hook(lambda _table, ids: (received(ids[0]),))
        table.register_forward_hook(send)

    def _fetching(self, component: str, copy: HostCopy) -> Callable[..., None]:
        def fetch(*_: object) -> None:
            if not copy.resident:
                copy.fetch()
                self._moved[component] += copy.nbytes

        return fetch

    def _between(self, decode: Callable[..., Any], transformer: HostCopy | None, vae: HostCopy | None) -> Any:
        """The VAE's `decode` with the transformer gone and the VAE there, and the VAE gone after it."""
        fetch = None if vae is None else self._fetching("vae", vae)

        def decoded(*arguments: Any, **options: Any) -> Any:
            if transformer is not None:
                transformer.drop()
            if fetch is not None:
                fetch()
            made = decode(*arguments, **options)
            if vae is not None:
                vae.drop()
            return made

        return decoded

    def _in_groups(self, component: str, module: nn.Module, blocks: int) -> None:
        """Memory that is not pinned beforehand is pinned by diffusers as it goes, if there is a stream."""
        self._count_layers(component, module)
        apply_group_offloading(
            module,
            onload_device=self._device,
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=blocks,
            use_stream=self._stream,
            low_cpu_mem_usage=not self._pin,
        )

    def _count_layers(self, component: str, module: nn.Module) -> None:
        """Count a layer's bytes when it computes, and those outside of layers when the module does."""

        def counting(nbytes: int) -> Callable[..., None]:
            def count(*_: object) -> None:
                self._moved[component] += nbytes

            return count

        runs: Any = module.decoder if component == "vae" else module  # the VAE is asked to decode, never to forward
        layers = _layers(runs)
        for layer in layers:
            layer.register_forward_pre_hook(counting(_nbytes(layer)))
        runs.register_forward_pre_hook(counting(_nbytes(runs) - sum(map(_nbytes, layers))))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _layers(module: nn.Module) -> list[nn.Module]:
    return [layer for child in module.children() if isinstance(child, nn.ModuleList) for layer in child]


def _own_table(encoder: Any) -> nn.Embedding | None:
    """The table of tokens of a text encoder of transformers'; None where another module, such as a head, has it too."""
    table: nn.Embedding = encoder.get_input_embeddings()
    holders = [m for m in encoder.modules() if any(p is table.weight for p in m.parameters(recurse=False))]
    return table if holders == [table] else None


def _nbytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in _tensors(module))


def _weights_of(pipe: Any, component: str) -> list[Tensor]:
    return list(getattr(pipe, component).parameters())


def _refuse_packed(pipe: Any, mode: str) -> None:
    """Raise ConfigError where weights that `mode` moves are packed so that they cannot be moved as plain bytes.

    Those of GGUF are bytes with a name; accelerate's hooks lose the name.
    """
    moved = BY_NAME[mode].waiting
    kinds = {type(p).__name__ for component in COMPONENTS if component in moved for p in _weights_of(pipe, component)}
    packed = kinds - {"Parameter"} - ({"GGUFParameter"} if mode != "sequential" else set())
    if mode != "none" and packed:
        way = "offload=group and offload=all can" if packed == {"GGUFParameter"} else "offload=none leaves them there"
        raise ConfigError("offload.mode", mode, f"it cannot move weights packed as {', '.join(sorted(packed))}; {way}")


def _calling(what: Callable[[], None]) -> Callable[..., None]:
    """A hook that does just that."""

    def call(*_: object) -> None:
        what()

    return call


def _pin(module: nn.Module, pin: bool) -> None:
    """Move a module's weights to host memory."""
    for tensor in _tensors(module):
        tensor.data = tensor.data.cpu().pin_memory() if pin else tensor.data.cpu()
