"""The reference engine: diffusers' ZImagePipeline, resident, with cache-dit switched on and off around it.

It runs on one device, the one that the trial names; of several it is one rank's part (`ranks.group`). It refuses
settings that cache-dit would only assert on; what `ReferenceEngine.supports` rules out does not get here. Everything it
wraps or hooks is taken off again by `close`.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from zbench.config import ComputeConfig, PipelineConfig
from zbench.engines import Generation, OnProgress, StageError
from zbench.engines.reference.allocator import TorchAllocator
from zbench.engines.reference.caching import CacheSwitch
from zbench.engines.reference.calls import Called, batch_arguments, call_arguments
from zbench.engines.reference.compiling import compile_seconds, forget_compiled, graphs_compiled, seconds_between
from zbench.engines.reference.decoded import Decoded, pixels_of
from zbench.engines.reference.graphed import GraphedForward
from zbench.engines.reference.host_memory import release_host_memory
from zbench.engines.reference.lora import load_lora
from zbench.engines.reference.offloading import Offloading
from zbench.engines.reference.ranks import Beat, RankWorld
from zbench.engines.reference.speeding import speed
from zbench.engines.reference.text_tokens import TextTokens, cut_tokens
from zbench.engines.reference.vram_limit import GIB, context_bytes, lift_vram_limit, set_vram_limit
from zbench.engines.weights import WeightsPlace, key_of, resolve_weights
from zbench.environment import cores_available
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.hardware.nvml import Nvml, visible
from zbench.measurement import Communication, Effective
from zbench.methods import attention, fast, offload, quantization
from zbench.methods.dtypes import dtype_on
from zbench.probes.communication import profiled_kernels
from zbench.probes.timers import CudaTimer, HostTimer, StageClock
from zbench.probes.watched import Watched
from zbench.quality.validity import image_faults
from zbench.trial import Trial
from zbench.zimage.checksum import Content, content_of
from zbench.zimage.contents import weights_of
from zbench.zimage.layout import WeightsError
from zbench.zimage.loading import load_pipeline
from zbench.zimage.storage import stored_dtypes

STEP = "step"

WEIGHTS_SEED = 0
"""What random weights are drawn from; equal in every run, so that they are comparable."""


class ReferencePipeline:
    """See `zbench.engines.Engine` and `ranks.Member`."""

    def __init__(self, world: RankWorld | None = None, beat: Beat = lambda doing: None) -> None:
        """`world` is this rank's place, None where there is but one; `beat` is told of every stage and step."""
        self.pipe: Any = None  # diffusers.ZImagePipeline
        self.device = "cpu"
        self.span_s = (0.0, 0.0)
        self._world, self._beat = world, beat
        self._context_bytes: int | None = None
        self._threads_before = torch.get_num_threads()
        self._applied = ExitStack()  # what was changed of the loaded pipeline, and how to put it back
        self._quantized: dict[str, int] = {}
        self._sharded: Any = None
        self._captured = "none"
        self._graphed: list[GraphedForward] = []

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        """Raises ConfigError, or WeightsUnavailableError naming the file that is missing or wrong."""
        kind = _device(trial.compute.device)
        self.device = kind if self._world is None or kind == "cpu" else f"{kind}:{self._world.rank}"
        if self._on_gpu:
            self._context_bytes = context_bytes(_present(self._world))  # while nothing is loaded
            _check_attention(trial.compute, self.device)
        elif self._world is not None:
            torch.set_num_threads(_threads(self._world))
        self._trial = trial
        self._dtype = _dtype(trial.compute.dtype, kind)
        waiting = offload.BY_NAME[trial.offload.mode].waiting
        self._weights, self._loaded = _load(trial, self._dtype, self.device, waiting, on_progress)
        pipe = self._loaded.pipe
        if self._weights.lora is not None:
            digest = load_lora(pipe, self._weights.lora, trial.pipeline)
            self._loaded = self._loaded._replace(content=self._loaded.content._replace(lora_sha256=digest))
        _set_vae(pipe.vae, trial.pipeline)
        _set_attention(pipe, trial.compute)
        self._shard(pipe, trial)
        self._captured = trial.graphs if self._on_gpu else "none"
        self._quantized, self._graphed = speed(pipe, trial, self._captured, self._sharded, self._applied)
        self._offloading = Offloading(pipe, trial.offload, self.device)
        release_host_memory()  # what loading needed for a moment is no peak of a generation
        if self._on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self._limit = None if trial.vram_limit_gib is None else set_vram_limit(trial.vram_limit_gib)
        self._cache = CacheSwitch(pipe)
        self._watch(pipe)
        self.pipe = pipe  # only now is there something to close

    def configure(self, trial: Trial) -> None:
        """Raises ConfigError for a cache that this pipeline cannot run."""
        self._trial = trial
        self._cache.set(trial.cache, trial.pipeline.steps)

    def generate(self, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        """The clock starts with the device idle and stops when the images are in host memory.

        Image k of the call has the seed `seed + k`; the first is the one returned. Images of a later replica follow
        those of the one before it.
        """
        pipeline = self._trial.pipeline
        first_seed = seed + (0 if self._world is None else self._world.replica * pipeline.images)
        made = self._call(call_arguments(pipeline, prompt_text, first_seed, negative_prompt))
        spoilt = [name for k in range(pipeline.images) for name in made.spoilt(k)]
        return Generation(
            image=made.images[0],
            latents=made.latents[0].to("cpu", torch.float32).numpy(),
            images=pipeline.images,
            text_tokens=self._tokens.latest,
            invalid_reasons=[*dict.fromkeys(spoilt), *image_faults(made.images[1:], None)],
            **made.told,
        )

    def generate_batch(self, calls: Sequence[tuple[str, int, str]]) -> list[Generation]:
        """See `Batched`: the samples of one batch, each with a generator of its own."""
        made = self._call(batch_arguments(self._trial.pipeline, calls))
        return [
            Generation(
                image=image,
                latents=made.latents[k].to("cpu", torch.float32).numpy(),
                text_tokens=self._tokens.latest[k :: len(calls)],
                invalid_reasons=made.spoilt(k),
                **made.told,
            )
            for k, image in enumerate(made.images)
        ]

    def _call(self, arguments: dict[str, Any]) -> Called:
        """One call of the pipeline under the clock. Raises StageError."""
        latents: list[torch.Tensor] = []

        def keep_latents(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            latents[:] = [tensors["latents"]]
            return {}

        arguments["output_type"] = "pt"  # it is made into bytes here, on the device
        clock = self._clock
        clock.reset()
        self._decoded.reset()
        self._offloading.reset()
        clock.timer.synchronize()
        made_before, spent_before_s = self._graphs_made, self._compiling_s
        began = time.perf_counter()
        device_began = clock.timer.mark()
        try:
            images = pixels_of(self.pipe(**arguments, callback_on_step_end=keep_latents).images)
            device_ended = clock.timer.mark()
            clock.timer.synchronize()
        except Exception as error:
            raise StageError({None: "text_encode", STEP: "denoise"}.get(clock.latest, str(clock.latest))) from error
        self.span_s = began, time.perf_counter()
        cached_steps, residual_diffs = self._cache.statistics()
        told = {
            "latency_s": self.span_s[1] - began,
            "stages_s": {
                "text_encode": math.fsum(clock.spans_s("text_encode")),
                "denoise": clock.gap_s("text_encode", "decode") or 0.0,
                "decode": math.fsum(clock.spans_s("decode")),
            },
            "steps_s": clock.spans_s(STEP),
            "cached_steps": cached_steps,
            "residual_diffs": residual_diffs,
            "device_s": clock.timer.seconds(device_began, device_ended) if self._on_gpu else None,
            "compiled": self._graphs_made > made_before,
            "compile_s": seconds_between(spent_before_s, self._compiling_s),
        }
        return Called(images, latents[0], self._decoded.take_finite(), told)

    def effective(self) -> Effective:
        """See `Engine.effective`."""
        trial = self._trial
        return Effective(
            device="cuda" if self._on_gpu else "cpu",
            device_name=torch.cuda.get_device_name() if self._on_gpu else "cpu",
            dtype=str(self._dtype).removeprefix("torch."),
            weights=self._weights.source,
            weights_note=self._weights.note,
            weights_files=self._loaded.weights_files,
            weights_sha256=self._loaded.content.weights_sha256,
            configs_sha256=self._loaded.content.configs_sha256,
            stored_dtypes=self._loaded.stored_dtypes,
            lora_sha256=self._loaded.content.lora_sha256,
            lora_scale=None if self._weights.lora is None else trial.pipeline.lora_scale,
            lora_fused=None if self._weights.lora is None else trial.pipeline.lora_fused,
            weights_seed=WEIGHTS_SEED if self._weights.source == "random" else None,
            vae=None if (vae := self._weights.checkpoint.vae) is None else str(vae),
            vae_tiling=_tiles(self.pipe.vae, trial.pipeline),
            vae_slicing=self.pipe.vae.use_slicing and trial.pipeline.images > 1,
            n_blocks=self._cache.n_blocks,
            steps=trial.pipeline.steps,
            threads=torch.get_num_threads(),
            attention_backend=trial.compute.attention_backend,
            compile=trial.compute.compile,
            graphs=self._captured,
            fast=fast.asked(trial.compute),
            quantized=self._quantized,
            offload=trial.offload.mode,
            pin_memory=self._offloading.pin_memory,
            offload_moved_bytes=self._offloading.moved_bytes,
            context_bytes=self._context_bytes,
            vram_limit_gib=None if self._limit is None else self._limit.limit_bytes / GIB,
            allocator_limit_bytes=None if self._limit is None else self._limit.allocator_bytes,
            cache=self._cache.effective(),
            cut_tokens=cut_tokens(self.pipe.tokenizer, trial.pipeline, trial.workload.prompts),
            other={**({} if self._sharded is None else self._sharded.told), **quantization.told(trial.compute)},
        )

    def communication(self, prompt_text: str, seed: int, negative_prompt: str = "") -> list[Communication]:
        """See `Profiled`: this rank's. Graphs are captured anew: a profiler may not see those made before it came."""
        from zbench.engines.reference.sharded.profiling import measure_communication

        def call() -> None:
            self.pipe(**call_arguments(self._trial.pipeline, prompt_text, seed, negative_prompt))

        if self._graphed:
            profiled_kernels(lambda: None)  # from here on there is a profiler
            pool = torch.cuda.graph_pool_handle()
            for graphed in self._graphed:
                graphed.forget(pool)
            call()
        rank = 0 if self._world is None else self._world.rank
        seen = measure_communication(self.pipe.transformer, call, rank)
        return [] if seen is None else [seen]

    def watch(self) -> Watched:
        """This process, and the device that torch calls the current one."""
        if not self._on_gpu:
            return Watched((os.getpid(),))
        shown, current = visible(Nvml().devices()), torch.cuda.current_device()
        devices = (shown[current].index,) if current < len(shown) else ()
        return Watched((os.getpid(),), devices, TorchAllocator(), self._context_bytes)

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """The pipeline as if zbench were not there, to measure what watching costs."""
        self._unwatch()
        try:
            yield
        finally:
            self._watch(self.pipe)

    @property
    def _graphs_made(self) -> int:
        """By torch.compile, and captured; who made one has a time that says nothing."""
        captured = sum(graphed.count for graphed in self._graphed)
        return captured + (graphs_compiled() if fast.compiled(self._trial.compute) else 0)

    @property
    def _compiling_s(self) -> float | None:
        """Seconds that went into these; None where torch does not say."""
        captured_s = sum(graphed.seconds for graphed in self._graphed)
        compiled_s = compile_seconds() if fast.compiled(self._trial.compute) else 0.0
        return None if compiled_s is None else captured_s + compiled_s

    @property
    def _on_gpu(self) -> bool:
        return self.device != "cpu"

    def _watch(self, pipe: Any) -> None:
        self._clock = _watched(pipe, self._on_gpu, self._beat)
        self._tokens, self._decoded = TextTokens(pipe.transformer), Decoded(pipe)

    def _shard(self, pipe: Any, trial: Trial) -> None:
        """Share the work of an image with the other ranks of the replica, if there are any."""
        if self._world is None or self._world.dims.ranks == 1:
            return
        from zbench.engines.reference.sharded import Sharded
        from zbench.engines.reference.sharded.mesh import join

        self._beat("meeting")
        mesh = join(self._world, self.device)
        self._applied.callback(mesh.leave)
        self._beat("sharding")
        self._sharded = Sharded(pipe, trial, mesh)
        self._applied.callback(self._sharded.close)

    def _put_back(self) -> None:
        """Undo what was applied, the last first."""
        self._graphed, self._sharded = [], None
        self._applied.close()

    def _unwatch(self) -> None:
        self._clock.close()
        self._tokens.close()
        self._decoded.close()

    def close(self) -> None:
        """Take off hooks, drop the pipeline, leave the other ranks, give the memory back."""
        torch.set_num_threads(self._threads_before)
        if self.pipe is None:
            self._put_back()
            return
        self._unwatch()
        self._cache.off()
        self._put_back()
        self.pipe = None
        self._loaded = self._loaded._replace(pipe=None)
        del self._cache, self._clock, self._tokens, self._decoded, self._offloading
        if fast.compiled(self._trial.compute):
            forget_compiled()
        gc.collect()
        if self._on_gpu:
            torch.cuda.empty_cache()
        release_host_memory()
        if self._limit is not None:
            lift_vram_limit()


def _watched(pipe: Any, on_gpu: bool, beat: Beat) -> StageClock[Any]:
    """A clock on the stages and steps of `pipe`, which also gives a sign of life with each."""
    clock: StageClock[Any] = StageClock(CudaTimer(torch.cuda) if on_gpu else HostTimer(), beat)
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


def _present(world: RankWorld | None) -> int:
    """The number of this rank's GPU. Raises ConfigError where there are fewer than ranks."""
    if world is None:
        return 0
    there = torch.cuda.device_count()
    if there < world.dims.devices:
        asked = ", ".join(world.dims.labels)
        raise ConfigError("parallel", asked, f"needs {world.dims.devices} GPUs, and torch sees {there}")
    return world.rank


def _threads(world: RankWorld) -> int:
    """Threads of one rank on a CPU: ranks share its cores, and a library that was told to use fewer does."""
    return min(torch.get_num_threads(), max(1, cores_available() // world.dims.devices))


def _dtype(name: str, device: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, dtype_on(device, name).name)
    return dtype


class _Loaded(NamedTuple):
    """A pipeline, and what its files held."""

    pipe: Any
    content: Content
    stored_dtypes: dict[str, list[str]]
    weights_files: dict[str, list[str]]


def _load(
    trial: Trial, dtype: torch.dtype, device: str, on_host: Collection[str], on_progress: OnProgress | None
) -> tuple[WeightsPlace, _Loaded]:
    place = resolve_weights(trial.pipeline)
    checkpoint = place.checkpoint
    if place.fetch:
        checkpoint = replace(checkpoint, folder=_download(str(place.hub_id)))
    try:
        pipe = load_pipeline(
            checkpoint, dtype=dtype, device=device, on_host=on_host, seed=WEIGHTS_SEED, progress=on_progress
        )
        names = {component: [path.name for path in paths] for component, paths in weights_of(checkpoint).items()}
        return place, _Loaded(pipe, content_of(checkpoint), stored_dtypes(checkpoint), names)
    except WeightsError as error:
        raise WeightsUnavailableError(f"{key_of(trial.pipeline, error)}: {error}") from error


def _set_vae(vae: Any, pipeline: PipelineConfig) -> None:
    if pipeline.vae_tiling:
        vae.enable_tiling()
    if pipeline.vae_slicing:
        vae.enable_slicing()


def _tiles(vae: Any, pipeline: PipelineConfig) -> bool:
    """Whether an image is decoded in tiles: diffusers leaves one that is no larger than a tile whole."""
    return bool(vae.use_tiling and max(pipeline.height, pipeline.width) > vae.tile_sample_min_size)


def _download(hub_id: str) -> Any:
    """Fetch a pipeline; asked for by `pipeline.download=true` alone."""
    from pathlib import Path

    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
    except (OSError, ValueError) as error:
        raise WeightsUnavailableError(f"pipeline.download=true: {hub_id} could not be fetched ({error})") from error


def _check_attention(compute: ComputeConfig, device: str) -> None:
    """Raise ConfigError for a kernel that this GPU has not, before anything is loaded."""
    if compute.attention_backend != attention.CUDNN_FP8:
        return
    major, minor = torch.cuda.get_device_capability(device)
    capability = major + minor / 10 if torch.version.hip is None else None
    problem = attention.problem_on_card(capability, torch.cuda.get_device_name(device))
    if problem is not None:
        raise ConfigError(attention.KEY, compute.attention_backend, problem)


def _set_attention(pipe: Any, compute: ComputeConfig) -> None:
    """Native too: diffusers keeps the latest name for the whole process, beside that of each layer."""
    try:
        pipe.transformer.set_attention_backend(attention.of_diffusers(compute.attention_backend))
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError("compute.attention_backend", compute.attention_backend, str(error)) from error
