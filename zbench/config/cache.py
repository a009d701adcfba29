"""Step skipping: a class for each method that zbench knows, and one for those from outside."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from zbench.config.group import Group
from zbench.config.ranges import check_name, number, one_of
from zbench.errors import ConfigError

SCM_POLICIES = ("dynamic", "static")
SCM_PRESETS = ("slow", "medium", "fast", "ultra")
MASK = re.compile(r"1[01]{0,999}")
"""Of `cache.steps_mask`: nothing is kept before the first step, so that is always computed."""


@dataclass
class CacheConfig(Group):
    """Step skipping, with cache-dit's parameter names."""

    method: str = "none"


@dataclass
class DBCacheConfig(CacheConfig):
    """DBCache: middle blocks are skipped where the first blocks' residual changed little."""

    method: str = "dbcache"
    Fn_compute_blocks: int = number(1, 1, 1000)
    Bn_compute_blocks: int = number(0, 0, 1000)
    max_warmup_steps: int = number(4, 0, 1000)
    residual_diff_threshold: float = number(0.24, 0, 1000)
    max_continuous_cached_steps: int = number(3, -1, 1000)  # -1: no limit
    enable_taylorseer: bool = False
    taylorseer_order: int = number(1, 1, 2)


@dataclass
class SCMConfig(DBCacheConfig):
    """Step computation masks: which steps may be skipped is fixed, by preset or by a mask of one's own."""

    method: str = "scm"
    scm_preset: str = "medium"
    scm_policy: str = "dynamic"  # dynamic: a masked step still asks the threshold; static: forced
    steps_mask: str | None = None  # in place of a preset's: a digit a step, 1 computes it; such as 11101001


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
    if cache.max_continuous_cached_steps == 0:
        raise ConfigError("cache.max_continuous_cached_steps", 0, "must be at least 1, or -1 for no limit")
    if isinstance(cache, SCMConfig):
        one_of("cache.scm_preset", cache.scm_preset, SCM_PRESETS)
        one_of("cache.scm_policy", cache.scm_policy, SCM_POLICIES)
        if cache.steps_mask is not None and MASK.fullmatch(cache.steps_mask) is None:
            form = "must be a digit a step, 1 where it is computed and 0 where not, the first 1; such as 11101001"
            raise ConfigError("cache.steps_mask", repr(cache.steps_mask), form)


def _check_custom(cache: CustomCacheConfig) -> None:
    if cache.method in CACHE_CLASSES:
        raise ConfigError("cache.method", cache.method, "names a method of zbench's own; give yours another name")
    check_name("cache.method", cache.method, "is part of labels")
    if not cache.target.strip():
        raise ConfigError("cache.target", repr(cache.target), "must be module:Class or an installed entry point")
