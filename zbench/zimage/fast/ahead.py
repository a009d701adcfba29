"""Lets the host ask ahead of what the device has done: a call of diffusers' pipeline waits for nothing on its way.

Of one `ZImagePipeline.__call__` these wait for the device, or let it wait, and are seen to here:

- The noise is drawn on the host and copied from pageable memory: the host waits until the texts are encoded, and only
  then goes on. Drawn by the pipeline itself for the host and sent by page-locked memory, it is there before it is due.
- So are the scheduler's sigmas and timesteps.
- `_execution_device` looks through every module of every component for hooks, 1,500 at full size, before anything has
  been asked of the device, and each step asks for the transformer's `dtype`, which looks through all of its own. On a
  slow host that is 10 ms a call and 2.6 a step; here it is once.

What stays: with guidance diffusers reads the timesteps back on the host, once, after the texts are encoded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from zbench.zimage.fast.stand_in import Undo, stand_in, undoing
from zbench.zimage.fast.transfer import sent


def run_ahead(pipe: Any) -> Undo:
    """Change `pipe`, a diffusers `ZImagePipeline`, so until the result is called; images stay the same to the bit.

    Where its modules compute and in which dtype is asked at the next call, after what hooks or converts them (offload,
    quantisation), and not again.
    """
    undos = [stand_in(pipe, "prepare_latents", _drawn_on_the_host(pipe.prepare_latents))]
    if hasattr(pipe.scheduler, "sigmas"):
        undos.append(stand_in(pipe.scheduler, "set_timesteps", _sent_tables(pipe.scheduler)))
    undos.append(_asked_once(pipe, "_execution_device"))
    undos += [_asked_once(module, "dtype") for module in (pipe.transformer, pipe.vae)]
    return undoing(undos)


def _drawn_on_the_host(prepare: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(prepare)

    def prepared(*args: Any, **kwargs: Any) -> Any:
        """As the pipeline's own; what is given, or drawn by a device's generator, does not come from the host."""
        asked = signature.bind(*args, **kwargs)
        asked.apply_defaults()
        generator, device = asked.arguments["generator"], asked.arguments["device"]
        generators = generator if isinstance(generator, list) else [generator]
        on_host = all(one is not None and one.device.type == "cpu" for one in generators)
        if asked.arguments["latents"] is not None or not on_host:
            return prepare(*args, **kwargs)
        asked.arguments["device"] = torch.device("cpu")
        return sent(prepare(*asked.args, **asked.kwargs), device)

    return prepared


def _sent_tables(scheduler: Any) -> Callable[..., None]:
    own = scheduler.set_timesteps
    signature = inspect.signature(own)

    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        """As the scheduler's own, whose tables are some ten numbers."""
        asked = signature.bind(*args, **kwargs)
        device = asked.arguments.get("device")
        asked.arguments["device"] = torch.device("cpu")
        own(*asked.args, **asked.kwargs)
        if device is not None:
            scheduler.timesteps, scheduler.sigmas = sent(scheduler.timesteps, device), sent(scheduler.sigmas, device)

    return set_timesteps


def _asked_once(owner: Any, name: str) -> Undo:
    """A property is the class's, so `owner` gets a class of the same name for it."""
    own = type(owner)
    asked: Callable[[Any], Any] = getattr(own, name).fget
    answers: list[Any] = []

    def answer(self: Any) -> Any:
        if not answers:
            answers.append(asked(self))
        return answers[0]

    made = type(own.__name__, (own,), {name: property(answer), "__module__": own.__module__, "__doc__": own.__doc__})
    owner.__class__ = made

    def undo() -> None:
        if type(owner) is made:
            owner.__class__ = own

    return undo
