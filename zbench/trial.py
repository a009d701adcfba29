"""A trial: one configuration to be measured, frozen and named by what it is.

It refuses to hold anything that does not change what runs: grids, sweep names and measuring effort
are no part of it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING as MISSING_DEFAULT
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from omegaconf import MISSING

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    Config,
    EngineConfig,
    HardwareConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    WorkloadConfig,
    cache_class,
    engine_class,
)
from zbench.config.arrivals import OF_KINDS
from zbench.config.hardware import LATER_SHARES
from zbench.config.pipeline import OWN_OF_PROMPTS
from zbench.decode import check_untyped, typed
from zbench.errors import ConfigError
from zbench.methods import attention, dtypes, fast, graphs, lora, offload, parallel, quantization
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims
from zbench.zimage.geometry import Geometry, VaeGeometry
from zbench.zimage.layout import preset_folder

OMITTED_WHEN_DEFAULT: frozenset[tuple[str, str]] = frozenset(
    {
        ("pipeline", "variant"),
        ("pipeline", "lora"),
        ("pipeline", "lora_scale"),
        ("pipeline", "lora_fused"),
        ("parallel", "gather_size"),
        ("parallel", "cfg_size"),
        ("parallel", "dp_size"),
        ("parallel", "gather_by"),
        ("compute", "graphs"),
        *(("compute", knob) for knob in fast.KNOBS),
        ("compute", "quantization"),
        ("compute", "scope"),
        ("offload", "keep_layers"),
        ("compute", "norms"),
        ("cache", "steps_mask"),
        ("parallel", "ulysses_anything"),
        ("parallel", "ulysses_async"),
        ("parallel", "ring_rotate_method"),
        ("parallel", "vae"),
        ("parallel", "text_encoder"),
        ("hardware", "num_devices"),
        ("hardware", "compute_capability"),
        *(("hardware.efficiency", name) for name in LATER_SHARES),
        ("hardware.efficiency.spread", "fp8"),
        ("workload", "prompt"),
        ("workload", "prompts_file"),
        ("workload", "negative_prompt"),
        *(("workload", name) for name in ("arrivals", *OF_KINDS)),
        ("workload.prompts", "negative_prompt"),
        *(("workload.prompts", name) for name in OWN_OF_PROMPTS),
    }
)
"""Fields that came after schema 2, each with its group; what is inside of a group is `group.inner`. At its default
such a field is left out of `to_dict`, so that trials that do not use it keep their ids."""

WAS_CALLED = {"cuda_graph": True}
"""What `compute.graphs=all` was, before there were others: records and ids of then go on to mean the same."""

T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """One configuration. `hardware` is set only when the trial is projected onto hardware that is not here."""

    pipeline: PipelineConfig
    engine: EngineConfig
    parallel: ParallelConfig
    offload: OffloadConfig
    cache: CacheConfig
    compute: ComputeConfig
    workload: WorkloadConfig
    hardware: HardwareConfig | None = None
    vram_limit_gib: float | None = None  # cap that it is held to on a larger card

    @classmethod
    def from_config(cls, config: Config, *, projected: bool) -> "Trial":
        """Take from a composed job what decides what runs."""
        return cls(
            pipeline=lora.settled(config.pipeline),
            engine=config.engine,
            parallel=config.parallel,
            offload=config.offload,
            cache=config.cache,
            compute=config.compute,
            workload=config.workload,
            hardware=replace(config.hardware, num_devices=None) if projected else None,
            vram_limit_gib=None if projected else config.hardware.vram_limit_gib,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Trial":
        """Read back what `to_dict` wrote; further keys (such as a record's `measure`) are ignored.

        Raises ValueError if `data` is not a trial.
        """
        groups: dict[str, type] = {
            "pipeline": PipelineConfig,
            "parallel": ParallelConfig,
            "offload": OffloadConfig,
            "compute": ComputeConfig,
            "workload": WorkloadConfig,
        }
        lacking = [name for name in (*groups, "engine", "cache") if name not in data]
        if lacking:
            raise ValueError(f"no group {', '.join(lacking)}")
        try:
            groups["cache"] = cache_class(data["cache"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"cache={str(data['cache'])[:60]}: of no method that is known") from error
        groups["engine"] = engine_class(data["engine"])
        data = {**data, "compute": _with_graphs(data["compute"])}
        groups |= {"hardware": HardwareConfig} if data.get("hardware") is not None else {}
        read: dict[str, Any] = {name: group_of(schema, data[name], name) for name, schema in groups.items()}
        limit = data.get("vram_limit_gib")
        if limit is not None and type(limit) not in (int, float):
            raise ValueError(f"vram_limit_gib={limit!r}: must be a number")
        return cls(**read, vram_limit_gib=None if limit is None else float(limit))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without grids; `hardware`, `vram_limit_gib` and OMITTED_WHEN_DEFAULT only when set."""
        data = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        for group in data.values():
            if isinstance(group, dict):
                del group["grid"]
        for path, name in OMITTED_WHEN_DEFAULT:
            ones: Any = self
            all_written: Any = data
            for key in path.split("."):
                ones, all_written = getattr(ones, key, None), (all_written or {}).get(key)
            if all_written is None:
                continue
            if not isinstance(ones, list):
                ones, all_written = [ones], [all_written]
            for one, written in zip(ones, all_written, strict=True):
                if name in written and getattr(one, name) == _default(type(one), name):  # not every cache has it
                    del written[name]
        return {key: value for key, value in data.items() if value is not None}

    @cached_property
    def trial_id(self) -> str:
        """12 hex digits of a sha256 over the canonical JSON of `to_dict`.

        The order of seeds and prompts is no part of it: the same images are made in any order. What had another name
        once is in it by that name.
        """
        data = self.to_dict()
        workload = data["workload"]
        data["workload"] = {
            **workload,
            "seeds": sorted(workload["seeds"]),
            "prompts": sorted(workload["prompts"], key=lambda prompt: str(prompt["id"])),
        }
        if data["compute"].get("graphs") == graphs.ALL:
            data["compute"] = {**data["compute"], **WAS_CALLED}
            del data["compute"]["graphs"]
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def reference(self) -> "Trial":
        """The same work in native precision, as PyTorch runs it: eager, no step skipped, one device, no offload.

        A LoRA is fused, where the weights allow that.

        Native is the checkpoint's bfloat16 on a GPU and float32 on a CPU. All images of this work are judged against
        its images. Where it does not fit, `space.reference_of` and the sweep say what serves in its place.
        """
        native = ComputeConfig(device=self.compute.device)
        return replace(
            self,
            pipeline=lora.native(self.pipeline),
            parallel=ParallelConfig(),
            offload=OffloadConfig(),
            cache=CacheConfig(),
            compute=native,
        )

    def with_own(self, own: Mapping[str, int]) -> "Trial":
        """The same at the size and steps that one prompt asks for; itself where it asks for none."""
        changes: dict[str, Any] = dict(own)
        return replace(self, pipeline=replace(self.pipeline, **changes)) if own else self

    @cached_property
    def graphs(self) -> str:
        """What is captured: `none`, `stages` or `all`; `compute.graphs=auto` is settled by the trial's other values."""
        decides = method_of(self.cache).choice != "none"
        return graphs.settled(self.compute, self.pipeline, self.parallel, self.offload, decides_on_host=decides)

    @property
    def memory_gib(self) -> float | None:
        """Device memory that it may use: of the hardware it is projected onto, or under the cap it is held to."""
        return self.vram_limit_gib if self.hardware is None else self.hardware.usable_gib

    @property
    def images(self) -> int:
        """Images that one call makes, those of all replicas."""
        return ParallelDims.of(self.parallel).dp * self.pipeline.images

    @property
    def label(self) -> str:
        """Short name, cache-dit's own for the cache: `F1B0_W4_MC3_R0.24`; other groups where not default."""
        cap_gib = self.vram_limit_gib if self.hardware is None else self.hardware.vram_limit_gib
        parts = (
            method_of(self.cache).label,
            *parallel.labels(self.parallel),
            offload.label(self.offload),
            None if cap_gib is None else f"cap:{cap_gib:g}GiB",
            *fast.labels(self.compute, self.parallel),
            quantization.label(self.compute),
            attention.label(self.compute.attention_backend),
            dtypes.label(self.compute.dtype),
            lora.label(self.pipeline),
            self.workload.load_label,
        )
        return " ".join(part for part in parts if part is not None)


def settled(compute: ComputeConfig, device: str, parallel: ParallelConfig, pipeline: PipelineConfig) -> ComputeConfig:
    """`compute` on such devices: native dtypes are `auto` and all else is not, so that one thing has one identity.

    Raises ConfigError for a `pipeline` whose dimensions would decide and cannot be read."""
    kernel = attention.settled(compute.attention_backend, device, rings=parallel.ring_size > 1)
    dtype = dtypes.settled(compute.dtype, device)
    on_device = replace(compute, device=device, dtype=dtype, attention_backend=kernel)
    return quantization.settled(fast.settled(on_device, parallel), lambda: geometry_of(pipeline).transformer)


def on_devices(trial: Trial, parallel: ParallelConfig) -> Trial:
    """What the words that came to `trial` come to with another split.

    Example: `compute=fast` joins queries, keys and values on one device, and keeps them apart where ranks gather them.
    """
    compute = words = trial.compute
    if compute.device not in attention.FASTEST or not fast.is_fast(compute, trial.parallel):
        return replace(trial, parallel=parallel)  # nothing is left open, or nobody settled it yet
    for knob in fast.OPEN:
        open_again: dict[str, Any] = {knob: fast.AUTO}
        opened = replace(words, **open_again)
        with suppress(ConfigError):  # a pipeline whose dimensions decide may be out of reach
            if settled(opened, compute.device, trial.parallel, trial.pipeline) == compute:
                words = opened
    return replace(trial, parallel=parallel, compute=settled(words, compute.device, parallel, trial.pipeline))


def unsharded(trial: Trial) -> Trial:
    """What the words that came to `trial` come to on one device."""
    return on_devices(trial, ParallelConfig())


def geometry_of(pipeline: PipelineConfig) -> Geometry:
    """The dimensions of what `pipeline` runs: its own folder's where weights name one, else its preset's.

    The VAE's are those of `pipeline.vae`, if that is here.
    """
    folder = Path(os.path.expanduser(pipeline.weights))
    own = pipeline.weights not in ("auto", "random") and (folder / "transformer" / "config.json").is_file()
    key = "weights" if own else "preset"
    try:
        geometry = _geometry_in(folder if own else preset_folder(pipeline.preset))
        vae = Path(os.path.expanduser(pipeline.vae or ""))
        if pipeline.vae is not None and (vae / "config.json").is_file():
            key = "vae"
            geometry = replace(geometry, vae=VaeGeometry.from_folder(vae))
    except (OSError, ValueError) as error:
        raise ConfigError(f"pipeline.{key}", getattr(pipeline, key), str(error)) from error
    return geometry


def preset_geometry(preset: str) -> Geometry:
    """The dimensions of a built-in pipeline. Raises ValueError naming those there are."""
    return _geometry_in(preset_folder(preset))


@cache
def _geometry_in(folder: Path) -> Geometry:
    """Read once a process, as every trial of a sweep asks for it."""
    return Geometry.from_folder(folder)


def _with_graphs(compute: Any) -> Any:
    """The JSON of a `compute` of any age, with `graphs` in place of what that was called once."""
    if not isinstance(compute, Mapping) or "cuda_graph" not in compute:
        return compute
    captured = compute["cuda_graph"]
    if not isinstance(captured, bool):
        raise ValueError(f"compute.cuda_graph={captured!r}: must be true or false")
    rest = {key: value for key, value in compute.items() if key != "cuda_graph"}
    return {**rest, "graphs": graphs.ALL if captured else graphs.NONE}


def _default(schema: Any, name: str) -> Any:
    """What a field of a dataclass is where nobody gave it a value."""
    item = schema.__dataclass_fields__[name]
    return item.default if item.default_factory is MISSING_DEFAULT else item.default_factory()


def _plain(value: Any) -> Any:
    """As `dataclasses.asdict`, several times faster: it copies no numbers and strings."""
    if is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def group_of(schema: type[T], data: Any, name: str) -> T:
    """A config group from its JSON; a key that is lacking has its default. Of equal groups there is one object.

    Raises ValueError for a key that is none or has another type, and for one that has no default and is lacking.
    """
    try:
        return cast(T, _group_of(cast(Any, schema), msgspec.json.encode(data)))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


@lru_cache(maxsize=4096)
def _group_of(schema: type[Any], encoded: bytes) -> object:
    data = msgspec.json.decode(encoded)
    check_untyped(data, "it")
    made = typed(schema, data)
    lacking = [f.name for f in fields(made) if getattr(made, f.name) == MISSING]
    if lacking:
        raise ValueError(f"{schema.__name__} lacks {', '.join(lacking)}")
    return made
