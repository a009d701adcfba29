"""Parallel degrees in words: a trial's label, SGLang's flags, cache-dit's configuration; what has no counterpart."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import yaml

from zbench.config import ParallelConfig
from zbench.methods.parallel.dims import KEY, ParallelDims
from zbench.methods.sglang import SGLangPart


def labels(parallel: ParallelConfig) -> tuple[str, ...]:
    """What a trial's label says of it: degrees above 1, and every option that is not its default."""
    marks = (
        ("uaa", parallel.ulysses_anything),
        ("async", parallel.ulysses_async),
        (parallel.ring_rotate_method, parallel.ring_rotate_method != "p2p"),
        (f"by:{parallel.gather_by}", parallel.gather_by != "auto"),
        (f"vae:{parallel.vae}", parallel.vae != "whole"),
        (f"text:{parallel.text_encoder}", parallel.text_encoder != "whole"),
    )
    return *ParallelDims.of(parallel).labels, *(mark for mark, on in marks if on)


def sglang_part(parallel: ParallelConfig) -> SGLangPart:
    """Every degree that matters is said, so that no default decides one.

    What older versions lack is left out where it would say 1 of one device.
    """
    dims = ParallelDims.of(parallel)
    flags = ["--num-gpus", str(dims.devices), "--tp-size", str(dims.tp)]
    flags += ["--sp-degree", str(dims.sequence)]
    flags += ["--ulysses-degree", str(dims.ulysses), "--ring-degree", str(dims.ring)]
    flags += ["--kv-gather-degree", str(dims.gather)] if dims.sequence > 1 else []
    flags += ["--dp-size", str(dims.dp)] if dims.dp > 1 else []
    flags += ["--enable-cfg-parallel", "true"] if dims.cfg > 1 else []
    notes = tuple(f"{said} has no counterpart in SGLang; this leaves it out." for said in _options(parallel))
    return SGLangPart(tuple(flags), notes=notes, carries=tuple(f"parallel.{f.metadata[KEY]}" for f in fields(dims)))


@dataclass(frozen=True)
class CacheDitSharding:
    """A sharded setting for cache-dit: the YAML that it loads, how many processes it takes, and what is left out."""

    config: Mapping[str, object]
    processes: int
    notes: tuple[str, ...]

    @property
    def yaml(self) -> str:
        """As `cache_dit.load_configs` reads it; empty where cache-dit has no part in it."""
        if not self.config:
            return ""
        return yaml.safe_dump({"parallelism_config": dict(self.config)}, sort_keys=False).rstrip("\n")


def cache_dit_sharding(parallel: ParallelConfig, attention_backend: str) -> CacheDitSharding | None:
    """The same for cache-dit 1.5.3, as near as it comes; None for one device."""
    dims = ParallelDims.of(parallel)
    if dims.devices == 1:
        return None
    degrees = {"tp_size": dims.tp, "ulysses_size": dims.ulysses, "ring_size": dims.ring}
    config: dict[str, object] = {key: degree for key, degree in degrees.items() if degree > 1}
    options = ("ulysses_anything", "ulysses_async")
    config |= {key: True for key in options if getattr(parallel, key)}
    extra = [key for key, asked in EXTRA if getattr(parallel, key) == asked]
    if config:
        config |= {"extra_parallel_modules": extra} if extra else {}
        config["attention_backend"] = attention_backend
    notes = []
    if dims.gather > 1:
        notes.append(f"cache-dit has no gather: parallel.gather_size={dims.gather} is zbench's own")
    if dims.cfg > 1:
        notes.append(f"cache-dit makes guidance's passes on one device: parallel.cfg_size={dims.cfg} is zbench's own")
    if dims.dp > 1:
        notes.append(f"parallel.dp_size={dims.dp} is as many such groups of processes, each with its own prompts")
    if parallel.vae == "split":
        notes.append("cache-dit shares a decode in tiles, another image: parallel.vae=split is zbench's own")
    return CacheDitSharding(config, dims.tp * dims.ulysses * dims.ring, tuple(notes))


EXTRA = (("text_encoder", "tp"), ("vae", "tiled"))
"""What cache-dit shards beside the transformer: the key in `parallel`, and its value that asks for that."""


def _options(parallel: ParallelConfig) -> list[str]:
    """Options that are not their defaults, as they are typed."""
    told = {
        "ulysses_anything": ("true", parallel.ulysses_anything),
        "ulysses_async": ("true", parallel.ulysses_async),
        "gather_by": (parallel.gather_by, parallel.gather_by != "auto"),
        "ring_rotate_method": (parallel.ring_rotate_method, parallel.ring_rotate_method != "p2p"),
        "vae": (parallel.vae, parallel.vae != "whole"),
        "text_encoder": (parallel.text_encoder, parallel.text_encoder != "whole"),
    }
    return [f"parallel.{key}={value}" for key, (value, on) in told.items() if on]
