"""Step skipping: a class for each method that zbench knows, and one for those from outside."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from zbench.config.group import Group
from zbench.config.ranges import at_least, one_of
from zbench.errors import ConfigError

SCM_POLICIES = ("dynamic", "static")
SCM_PRESETS = ("slow", "medium", "fast", "ultra")


@dataclass
class CacheConfig(Group):
    """Step skipping, with cache-dit's parameter names."""

    method: str = "none"


@dataclass
class DBCacheConfig(CacheConfig):
    """DBCache: middle blocks are skipped where the first blocks' residual changed little."""

    method: str = "dbcache"
    Fn_compute_blocks: int = 1
    Bn_compute_blocks: int = 0
    max_warmup_steps: int = 4
    residual_diff_threshold: float = 0.24
    max_continuous_cached_steps: int = 3
    enable_taylorseer: bool = False
    taylorseer_order: int = 1


@dataclass
class SCMConfig(DBCacheConfig):
    """Step computation masks: which steps may be skipped is fixed, by preset."""

    method: str = "scm"
    scm_preset: str = "medium"
    scm_policy: str = "dynamic"  # dynamic: a masked step still asks the threshold; static: forced


@dataclass
class CustomCacheConfig(CacheConfig):
    """A method from outside zbench: its name, its class and what that is given. The class is not looked at here."""

    method: str = MISSING
    target: str = MISSING  # module:Class or installed entry point of a `zbench.methods.cache.custom.CustomCache`
    options: dict[str, Any] = field(default_factory=dict)


# A cache's class says which parameters it has; `cache.method` names it in records and cannot be set on its own.
CACHE_CLASSES: dict[str, type[CacheConfig]] = {
    "none": CacheConfig,
    "dbcache": DBCacheConfig,
    "scm": SCMConfig,
}


def cache_class(data: Mapping[str, Any]) -> type[CacheConfig]:
    """The class of a cache setting that a record holds. Raises KeyError for a method that nobody knows."""
    method = data["method"]
    return CustomCacheConfig if method not in CACHE_CLASSES and "target" in data else CACHE_CLASSES[method]


def check_cache(cache: CacheConfig) -> None:
    """Raise ConfigError for a value of a cache setting that cannot be."""
    if isinstance(cache, CustomCacheConfig):
        _check_custom(cache)
        return
    if type(cache) is not CACHE_CLASSES.get(cache.method):
        raise ConfigError("cache.method", cache.method, "is set by the choice; use cache=<choice>")
    if not isinstance(cache, DBCacheConfig):
        return
    at_least("cache.Fn_compute_blocks", cache.Fn_compute_blocks, 1)
    at_least("cache.Bn_compute_blocks", cache.Bn_compute_blocks, 0)
    at_least("cache.max_warmup_steps", cache.max_warmup_steps, 0)
    at_least("cache.residual_diff_threshold", cache.residual_diff_threshold, 0)
    if cache.max_continuous_cached_steps != -1:
        at_least("cache.max_continuous_cached_steps", cache.max_continuous_cached_steps, 1)
    if cache.taylorseer_order not in (1, 2):
        raise ConfigError("cache.taylorseer_order", cache.taylorseer_order, "must be 1 or 2")
    if isinstance(cache, SCMConfig):
        one_of("cache.scm_preset", cache.scm_preset, SCM_PRESETS)
        one_of("cache.scm_policy", cache.scm_policy, SCM_POLICIES)


def _check_custom(cache: CustomCacheConfig) -> None:
    if cache.method in CACHE_CLASSES:
        raise ConfigError("cache.method", cache.method, "names a method of zbench's own; give yours another name")
    if not re.fullmatch(r"\w[\w.-]*", cache.method):
        raise ConfigError("cache.method", repr(cache.method), "is part of labels: letters, digits, '_', '-' and '.'")
    if not cache.target.strip():
        raise ConfigError("cache.target", repr(cache.target), "must be module:Class or an installed entry point")
