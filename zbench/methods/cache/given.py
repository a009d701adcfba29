"""A cache setting by parameters that a request gives over a server's own, as SGLang's `cache_dit_params` do."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from zbench.config import CacheConfig, DBCacheConfig, SCMConfig

PARAMETERS = tuple(item.name for item in fields(SCMConfig) if item.name not in ("method", "grid"))
"""All that there are."""

OF_MASKS = frozenset(PARAMETERS) - {item.name for item in fields(DBCacheConfig)}


def with_parameters(own: CacheConfig, given: Mapping[str, Any]) -> tuple[type[CacheConfig], dict[str, Any]]:
    """DBCache or a step mask, and its values: those given in place of `own`'s, or of DBCache's defaults."""
    kind = SCMConfig if isinstance(own, SCMConfig) or OF_MASKS & set(given) else DBCacheConfig
    start = asdict(own) if isinstance(own, DBCacheConfig) else asdict(DBCacheConfig())
    return kind, {name: value for name, value in start.items() if name in PARAMETERS} | dict(given)
