"""The reference engine: diffusers' ZImagePipeline, resident, with cache-dit switched on and off around it.

It runs on one device, the one that the trial names. It refuses parallel degrees above 1 and settings that cache-dit
would only assert on. Everything it wraps or hooks is taken off again by `close`.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from zbench.config import CacheConfig, ComputeConfig, PipelineConfig
from zbench.engines import Generation, StageError
from zbench.engines.caching import CacheSwitch
from zbench.engines.offloading import Offloading
from zbench.engines.vram_limit import VramLimit, lift_vram_limit, set_vram_limit
from zbench.engines.weights import Weights, resolve_weights
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.probes.timers import CudaTimer, HostTimer, StageClock
from zbench.trial import Trial
from zbench.zimage.layout import WeightsError
from zbench.zimage.loading import load_pipeline

STEP = "step"


class ReferenceEngine:
    """See `zbench.engines.Engine`."""

    def __init__(self) -> None:
        self.pipe: Any = None  # diffusers.ZImagePipeline
        self.device = "cpu"

    def load(self, trial: Trial) -> None:
        """Raises ConfigError, or WeightsUnavailableError naming the file that is missing or wrong."""
        if trial.parallel.world_size > 1:
            raise ConfigError("parallel", trial.parallel.world_size, "the reference engine runs on one device")
        self.device = _device(trial.compute.device)
        if trial.offload.mode == "sequential" and self.device != "cuda":
            raise ConfigError("offload.mode", trial.offload.mode, "needs a GPU; the other modes work on a CPU")
        self._limit = _limited(trial.vram_limit_gib, self.device)
        self._trial = trial
        self._dtype = _dtype(trial.compute.dtype, self.device)
        self._weights = resolve_weights(trial.pipeline)
        pipe = _load(self._weights, self._dtype, self.device if trial.offload.mode == "none" else "cpu")
        _set_compute(pipe, trial.compute)
        self._offloading = Offloading(pipe, trial.offload, self.device)
        self._cache = CacheSwitch(pipe, trial.pipeline.steps)
        self._clock = _watched(pipe, self.device)
        self.pipe = pipe  # only now is there something to close

    def configure(self, cache: CacheConfig) -> None:
        """Raises ConfigError for a cache that this pipeline cannot run."""
        self._cache.set(cache)

    def generate(self, prompt_text: str, seed: int) -> Generation:
        """The clock starts with the device idle and stops when the image is in host memory."""
        latents: list[torch.Tensor] = []

        def keep_latents(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            latents[:] = [tensors["latents"]]
            return {}

        arguments = call_arguments(self._trial.pipeline, prompt_text, seed)
        clock = self._clock
        clock.reset()
        self._offloading.reset()
        clock.timer.synchronize()
        graphs = _graphs_compiled() if self._trial.compute.compile else 0
        began = time.perf_counter()
        try:
            image = self.pipe(**arguments, callback_on_step_end=keep_latents).images[0]
            clock.timer.synchronize()
        except Exception as error:
            raise StageError({None: "text_encode", STEP: "denoise"}.get(clock.latest, str(clock.latest))) from error
        latency_s = time.perf_counter() - began
        cached_steps, residual_diffs = self._cache.statistics()
        return Generation(
            image=np.asarray(image.convert("RGB"), dtype=np.uint8),
            latents=latents[0][0].to("cpu", torch.float32).numpy(),
            latency_s=latency_s,
            stages_s={
                "text_encode": math.fsum(clock.spans_s("text_encode")),
                "denoise": clock.gap_s("text_encode", "decode") or 0.0,
                "decode": math.fsum(clock.spans_s("decode")),
            },
            steps_s=clock.spans_s(STEP),
            cached_steps=cached_steps,
            residual_diffs=residual_diffs,
            compiled=self._trial.compute.compile and _graphs_compiled() > graphs,
        )

    def effective(self) -> dict[str, Any]:
        """What took effect, JSON-ready."""
        trial = self._trial
        return {
            "device": self.device,
            "device_name": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "dtype": str(self._dtype).removeprefix("torch."),
            "weights": self._weights.source,
            "n_blocks": self._cache.n_blocks,
            "steps": trial.pipeline.steps,
            "threads": torch.get_num_threads(),
            "attention_backend": trial.compute.attention_backend,
            "compile": trial.compute.compile,
            **self._offloading.effective(),
            **({} if self._limit is None else self._limit.effective()),
            "cache": self._cache.effective(),
        }

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """The pipeline as if zbench were not there, to measure what watching costs."""
        self._clock.close()
        try:
            yield
        finally:
            self._clock = _watched(self.pipe, self.device)

    def close(self) -> None:
        """Take off hooks, drop the pipeline, give the memory back."""
        if self.pipe is None:
            return
        self._clock.close()
        self._cache.set(CacheConfig())
        self.pipe = None
        del self._cache, self._clock, self._offloading
        if self._trial.compute.compile:
            torch.compiler.reset()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        if self._limit is not None:
            lift_vram_limit()


def call_arguments(pipeline: PipelineConfig, prompt_text: str, seed: int) -> dict[str, Any]:
    """Arguments of the pipeline's call; the noise is drawn on the CPU, so it is the same on every device."""
    return {
        "prompt": prompt_text,
        "height": pipeline.height,
        "width": pipeline.width,
        "num_inference_steps": pipeline.steps,
        "guidance_scale": pipeline.guidance_scale,
        "max_sequence_length": pipeline.max_sequence_length,
        "generator": torch.Generator("cpu").manual_seed(seed),
    }


def _graphs_compiled() -> int:
    """How many graphs torch.compile has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _watched(pipe: Any, device: str) -> StageClock[Any]:
    """A clock on the stages and steps of `pipe`."""
    clock: StageClock[Any] = StageClock(CudaTimer(torch.cuda) if device == "cuda" else HostTimer())
    clock.watch_method(pipe, "encode_prompt", "text_encode")
    clock.watch_module(pipe.transformer, STEP)
    clock.watch_method(pipe.vae, "decode", "decode")
    return clock


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device", name, "torch sees no GPU; hardware=cpu measures on the CPU")
    return name


def _limited(limit_gib: float | None, device: str) -> VramLimit | None:
    if limit_gib is None:
        return None
    if device != "cuda":
        raise ConfigError("hardware.vram_limit_gib", limit_gib, "caps a GPU; this trial runs on the CPU")
    return set_vram_limit(limit_gib)


def _dtype(name: str, device: str) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if device == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _load(weights: Weights, dtype: torch.dtype, device: str) -> Any:
    folder = weights.folder
    if folder is None:
        folder = _download(str(weights.hub_id))
    try:
        return load_pipeline(
            folder, dtype=dtype, device=device, weights="random" if weights.source == "random" else "folder"
        )
    except WeightsError as error:
        raise WeightsUnavailableError(str(error)) from error


def _download(hub_id: str) -> Any:
    """Fetch a pipeline; asked for by `pipeline.download=true` alone."""
    from pathlib import Path

    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
    except (OSError, ValueError) as error:
        raise WeightsUnavailableError(f"pipeline.download=true: {hub_id} could not be fetched ({error})") from error


def _set_compute(pipe: Any, compute: ComputeConfig) -> None:
    if compute.attention_backend != "native":
        try:
            pipe.transformer.set_attention_backend(compute.attention_backend)
        except (ValueError, RuntimeError, ImportError) as error:
            raise ConfigError("compute.attention_backend", compute.attention_backend, str(error)) from error
    if compute.compile:
        pipe.transformer.compile_repeated_blocks(fullgraph=True)
