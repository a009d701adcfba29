"""Engines: what turns a prompt into an image. This module has their protocol and loads them by name; it imports none.

A new engine is one module with a class that fits `Engine`, and one line `target: module:Class` in `conf/engine/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from zbench.config import CacheConfig, EngineConfig
from zbench.errors import ConfigError
from zbench.measurement import Effective
from zbench.plugins import load_class
from zbench.trial import Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


OnProgress = Callable[[str, int, int], None]
"""Told of the stage (checking or loading), of bytes done, and of bytes in all."""


@dataclass(frozen=True)
class Generation:
    """One call of the pipeline, its first image and how it came about. Times are seconds."""

    image: NDArray[np.uint8]  # height × width × 3, RGB
    latents: NDArray[np.float32] | None  # as the last denoising step left them; None where an engine hides them
    latency_s: float  # wall clock of the whole call, device synchronised at both ends
    stages_s: dict[str, float]  # text_encode, denoise, decode; what is left of latency_s belongs to none
    steps_s: list[float]  # one transformer forward each, in order
    cached_steps: list[int] = field(default_factory=list)  # indices of steps whose middle blocks were skipped
    residual_diffs: dict[str, float] = field(default_factory=dict)  # step index to residual difference
    images: int = 1  # made by the call; `image` is the first
    text_tokens: list[int] = field(default_factory=list)  # prompt tokens of each sample in a transformer forward
    device_s: float | None = None  # the call on the device's own clock (CUDA events); None on a host
    compiled: bool = False  # whether something was compiled during the call, so that its time says nothing


class StageError(Exception):
    """A generation failed; `__cause__` is why."""

    def __init__(self, stage: str) -> None:
        """`stage` is text_encode, denoise or decode."""
        super().__init__(stage)
        self.stage = stage


class Engine(Protocol):
    """One resident pipeline. Calls come in this order: load, then configure and generate as often as wanted, close."""

    def load(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        """Bring up what `trial.resident_key` names. Raises ZbenchError for what the user can mend.

        `on_progress` is told how far it is, from the thread of this call; an engine that cannot say leaves it alone.
        """
        ...

    def configure(self, cache: CacheConfig) -> None:
        """Set step skipping for the generations that follow, without reloading; also takes off the former setting."""
        ...

    def generate(self, prompt_text: str, seed: int) -> Generation:
        """Make `pipeline.batch_size` times `pipeline.images_per_prompt` images in one call, the first from `seed`.

        Raises StageError from whatever stopped it.
        """
        ...

    def effective(self) -> Effective:
        """What took effect; an engine says what it knows."""
        ...

    def close(self) -> None:
        """Let go of the pipeline and of the memory it holds."""
        ...


def engine_class(config: EngineConfig, *, allow_code: bool = False) -> type[Any]:
    """What `engine.target` names, not yet made. Raises ConfigError as `plugins.load_class` does."""
    return load_class("engine", "engine.target", config.target, Engine, allow_code=allow_code)


def load_engine(config: EngineConfig, *, allow_code: bool = False) -> Engine:
    """An engine from `engine.target`, made with `engine.options`.

    Raises ConfigError as `engine_class` does, and for options that it does not take.
    """
    found = engine_class(config, allow_code=allow_code)
    try:
        engine: Engine = found(**config.options)
    except TypeError as error:
        problem = f"{found.__name__} does not take these ({error})"
        raise ConfigError("engine.options", config.options, problem) from error
    return engine
