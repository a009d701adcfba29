"""Cache methods: one file each, with everything that is to be known of it. Ask `method_of`.

A method of zbench's own is one file here, its schema in `zbench.config.cache` and one line in METHODS. A method from
outside is a class that fits `custom.CustomCache`, named by a config; zbench never imports it to decide anything.
"""

from collections.abc import Callable
from typing import Any, Protocol

from zbench.config import CacheConfig, CustomCacheConfig, DBCacheConfig, SCMConfig
from zbench.methods.cache.custom import OutsideCache
from zbench.methods.cache.dbcache import CacheDitArguments, DBCache
from zbench.methods.cache.none import NoCache, Plainest
from zbench.methods.cache.scm import StepMask
from zbench.methods.misfit import Misfit
from zbench.methods.sglang import SGLangPart

__all__ = ["METHODS", "CacheDitArguments", "CacheMethod", "Plainest", "method_of"]


class CacheMethod(Protocol):
    """One setting of one method: what it is called, needs, costs, and is in other tools' words."""

    @property
    def label(self) -> str:
        """What a trial is called by it: cache-dit's short name, such as `F1B0_W4_MC3_R0.24`."""
        ...

    @property
    def family(self) -> str:
        """What it is drawn together with: none, dbcache, taylorseer, scm, or the name of a method from outside."""
        ...

    @property
    def choice(self) -> str:
        """The choice of zbench's own, `cache=<choice>`, that is nearest."""
        ...

    @property
    def skips(self) -> bool:
        """Whether it skips anything at all."""
        ...

    @property
    def decider(self) -> str | None:
        """What decides from what is computed which steps are skipped, in words; None where that is fixed before."""
        ...

    @property
    def threshold(self) -> float | None:
        """The residual difference below which a step may be skipped; None where no threshold decides."""
        ...

    def at_threshold(self, value: float) -> CacheConfig:
        """The same setting with another threshold; itself where none decides."""
        ...

    @property
    def compared_by(self) -> tuple[object, ...] | None:
        """The values that decide which steps' differences are compared; None where those tell nothing of others."""
        ...

    @property
    def has_defaults(self) -> bool:
        """Whether it is DBCache as cache-dit has it by default."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters by name, those that mean something."""
        ...

    @property
    def kept_tensors(self) -> int:
        """Hidden states that it keeps between steps, as far as that is known."""
        ...

    @property
    def why_not_projected(self) -> str | None:
        """Why nothing can be said of it on hardware that is not here, or None."""
        ...

    @property
    def target(self) -> str | None:
        """The class from outside that runs it; None for zbench's own."""
        ...

    def problem(self, n_blocks: int, steps: int, whose: str) -> Misfit | None:
        """Why it cannot work with the `n_blocks` main blocks of `whose` transformer in `steps` steps, or None."""
        ...

    def plainest(self, n_blocks: int, steps: int) -> Plainest:
        """The plainest setting that is known to make the same images by the same steps; itself where none is known."""
        ...

    def forced_skips(self, steps: int) -> int:
        """Steps of `steps` that it skips whatever is computed; 0 where that is not known before."""
        ...

    def cached_blocks(self, n_blocks: int) -> int | None:
        """Main blocks that a skipped step computes, of `n_blocks`; None where that is not known."""
        ...

    def scaled(self, from_layers: int, to_layers: int) -> CacheConfig:
        """The setting that stands for this one on a transformer of another depth."""
        ...

    def cache_dit(self, steps: int) -> CacheDitArguments | None:
        """What cache-dit is to be given; None where it has no part in this."""
        ...

    def sglang_flags(self) -> SGLangPart:
        """What `sglang serve` is to be told."""
        ...

    def sglang_environment(self, devices: int) -> SGLangPart:
        """What its environment says, on so many devices."""
        ...


METHODS: dict[type[CacheConfig], Callable[[Any], CacheMethod]] = {
    CacheConfig: NoCache,
    DBCacheConfig: DBCache,
    SCMConfig: StepMask,
    CustomCacheConfig: OutsideCache,
}


def method_of(cache: CacheConfig) -> CacheMethod:
    """The method of a cache setting, with its parameters."""
    return METHODS[type(cache)](cache)
