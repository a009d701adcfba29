"""Methods from outside: what zbench says of one by its config alone, and what the class that it names must do.

The class is an engine's to import, where a trial is measured. Which steps it skips, and what a skipped step computes,
nobody can say before; so nothing of it is projected.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from zbench.config import CustomCacheConfig
from zbench.methods.cache.none import NoCache
from zbench.methods.sglang import SGLangPart


class CustomCache(Protocol):
    """A cache method from outside, made without arguments: an entry point of zbench.cache_methods, or module:Class."""

    def problem(self, options: Mapping[str, Any], n_blocks: int, steps: int) -> str | None:
        """Why `cache.options` cannot work with so many main blocks in so many steps, and what would; or None."""
        ...

    def enable(self, pipe: Any, options: Mapping[str, Any], steps: int) -> None:
        """Begin to skip, in every generation from now on. `pipe` is a diffusers pipeline that is loaded."""
        ...

    def disable(self, pipe: Any) -> None:
        """Leave the pipeline as `enable` found it, also where `enable` failed."""
        ...

    def statistics(self, pipe: Any) -> tuple[list[int], dict[str, float]]:
        """Of the last generation: indices of the steps that were skipped, and residual differences by step index."""
        ...

    def effective(self, pipe: Any) -> dict[str, Any]:
        """The parameters that took effect; JSON-ready."""
        ...


@dataclass(frozen=True)
class OutsideCache(NoCache):
    """See `zbench.methods.cache.CacheMethod`. It makes no claim that the config does not make."""

    cache: CustomCacheConfig

    @property
    def label(self) -> str:
        """Its name and options, such as `mine(threshold=0.1)`, in one order however they were typed."""
        options = ", ".join(f"{key}={_short(value)}" for key, value in sorted(self.cache.options.items()))
        return f"{self.cache.method}({options})" if options else self.cache.method

    @property
    def choice(self) -> str:
        return "custom"

    @property
    def skips(self) -> bool:
        return True

    @property
    def decider(self) -> str | None:
        """Nobody knows; so it is taken to look at what is computed."""
        return self.cache.method

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.cache.options)

    @property
    def why_not_projected(self) -> str | None:
        return (
            f"cache.method={self.cache.method} is from outside zbench: what it skips, and saves, on hardware that is "
            "not here is not known; measure it where that hardware is"
        )

    @property
    def target(self) -> str | None:
        return self.cache.target

    def cached_blocks(self, n_blocks: int) -> int | None:
        return None

    def sglang_environment(self, devices: int) -> SGLangPart:
        said = f"cache.method={self.cache.method} is from outside zbench; SGLang is started without step skipping."
        return SGLangPart(environment=super().sglang_environment(devices).environment, notes=(said,))


def _short(value: object) -> str:
    """A value as a label shows it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
