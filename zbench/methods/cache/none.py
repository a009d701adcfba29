"""No step skipping: every step computes every block."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from zbench.config import CacheConfig
from zbench.methods.misfit import Misfit
from zbench.methods.sglang import SGLangPart, spelled

SGLANG = "SGLANG_CACHE_DIT_"
"""What SGLang's environment variables for step skipping begin with."""


class Plainest(NamedTuple):
    """A setting that stands for another, and why that is so: a sentence without a full stop; "" for itself."""

    cache: CacheConfig
    why: str = ""


@dataclass(frozen=True)
class NoCache:
    """See `zbench.methods.cache.CacheMethod`; the others are told by what they do otherwise."""

    cache: CacheConfig

    @property
    def label(self) -> str:
        return self.cache.method

    @property
    def family(self) -> str:
        return self.cache.method

    @property
    def choice(self) -> str:
        return "none"

    @property
    def skips(self) -> bool:
        return False

    @property
    def decider(self) -> str | None:
        return None

    @property
    def threshold(self) -> float | None:
        return None

    def at_threshold(self, value: float) -> CacheConfig:
        return self.cache

    @property
    def compared_by(self) -> tuple[object, ...] | None:
        return None

    @property
    def has_defaults(self) -> bool:
        return False

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    @property
    def kept_tensors(self) -> int:
        return 0

    @property
    def why_not_projected(self) -> str | None:
        return None

    @property
    def target(self) -> str | None:
        return None

    def problem(self, n_blocks: int, steps: int, whose: str) -> Misfit | None:
        return None

    def plainest(self, n_blocks: int, steps: int) -> Plainest:
        return Plainest(self.cache)

    def forced_skips(self, steps: int) -> int:
        return 0

    def cached_blocks(self, n_blocks: int) -> int | None:
        return n_blocks

    def scaled(self, from_layers: int, to_layers: int) -> CacheConfig:
        return self.cache

    def cache_dit(self, steps: int) -> None:
        return None

    def sglang_flags(self) -> SGLangPart:
        return SGLangPart()

    def sglang_environment(self, devices: int) -> SGLangPart:
        return SGLangPart(environment={f"{SGLANG}ENABLED": spelled(False)}, carries=("cache.method",))
