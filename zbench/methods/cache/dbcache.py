"""DBCache: the middle blocks are skipped where the first ones' residual changed little; TaylorSeer extrapolates it."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from zbench.config import CacheConfig, DBCacheConfig
from zbench.methods.cache.none import SGLANG, Plainest
from zbench.methods.misfit import Misfit
from zbench.methods.sglang import SGLangPart, spelled

CACHE_TENSORS = 4
"""Hidden states DBCache keeps between steps: residuals of the first and of the middle blocks, now and before."""


SGLANG_NAMES = {
    "FN": "Fn_compute_blocks",
    "BN": "Bn_compute_blocks",
    "WARMUP": "max_warmup_steps",
    "RDT": "residual_diff_threshold",
    "MC": "max_continuous_cached_steps",
    "TAYLORSEER": "enable_taylorseer",
    "TS_ORDER": "taylorseer_order",
}
"""What SGLang's variable is called after its beginning, and the parameter that it holds."""


@dataclass(frozen=True)
class CacheDitArguments:
    """Arguments by keyword, for an engine that has cache-dit; this module has not."""

    config: dict[str, Any]
    """Of `cache_dit.DBCacheConfig`."""
    mask: dict[str, Any] = field(default_factory=dict)
    """Of `cache_dit.steps_mask`, whose outcome is then `steps_computation_mask`; empty without a mask."""
    taylorseer: dict[str, Any] | None = None
    """Of `cache_dit.TaylorSeerCalibratorConfig`; None without TaylorSeer."""


@dataclass(frozen=True)
class DBCache:
    """See `zbench.methods.cache.CacheMethod`."""

    cache: DBCacheConfig

    @property
    def label(self) -> str:
        """cache-dit's own, such as `F1B0_W4_MC3_R0.24_T1O1`."""
        return f"{self._blocks}{self._threshold}{self._extrapolated}"

    @property
    def family(self) -> str:
        return "taylorseer" if self.cache.enable_taylorseer else self.cache.method

    @property
    def choice(self) -> str:
        return "taylorseer" if self.cache.enable_taylorseer else "dbcache"

    @property
    def skips(self) -> bool:
        return True

    @property
    def decider(self) -> str | None:
        return "a threshold"

    @property
    def threshold(self) -> float | None:
        return self.cache.residual_diff_threshold

    def at_threshold(self, value: float) -> CacheConfig:
        return self.cache if self.threshold is None else replace(self.cache, residual_diff_threshold=value)

    @property
    def compared_by(self) -> tuple[object, ...] | None:
        return self.cache.Fn_compute_blocks, self.cache.Bn_compute_blocks, self.cache.max_warmup_steps

    @property
    def has_defaults(self) -> bool:
        return self.cache == replace(DBCacheConfig(), grid=self.cache.grid)

    @property
    def parameters(self) -> dict[str, Any]:
        """Without TaylorSeer its order means nothing."""
        unused = {"grid", "method"} | (set() if self.cache.enable_taylorseer else {"taylorseer_order"})
        return {key: value for key, value in asdict(self.cache).items() if key not in unused}

    @property
    def kept_tensors(self) -> int:
        return CACHE_TENSORS + (self.cache.taylorseer_order if self.cache.enable_taylorseer else 0)

    @property
    def why_not_projected(self) -> str | None:
        return None

    @property
    def target(self) -> str | None:
        return None

    def problem(self, n_blocks: int, steps: int, whose: str) -> Misfit | None:
        first, last = self.cache.Fn_compute_blocks, self.cache.Bn_compute_blocks
        if first + last <= n_blocks:
            return None
        values = {"cache.Fn_compute_blocks": first, "cache.Bn_compute_blocks": last}
        return Misfit(values, f"exceed the {n_blocks} blocks of {whose}")

    def plainest(self, n_blocks: int, steps: int) -> Plainest:
        """As cache-dit 1.5.3 behaves; `tests/engines/reference/test_plainest.py` runs each rule."""
        idle = self._idle(n_blocks, steps)
        if idle is not None:
            return Plainest(CacheConfig(), idle)
        unused = self._unused(steps)
        changed = {key: getattr(type(self.cache), key) if plain is None else plain for key, plain in unused.items()}
        plain = replace(self.cache, **changed)
        told = [
            f"cache.{key}={getattr(self.cache, key)}" for key in changed if getattr(self.cache, key) != changed[key]
        ]
        return Plainest(plain, f"{' and '.join(told)} decide{'' if len(told) > 1 else 's'} nothing" if told else "")

    def _idle(self, n_blocks: int, steps: int) -> str | None:
        """Why nothing is ever skipped by it, in a sentence; None where something may be."""
        first, last = self.cache.Fn_compute_blocks, self.cache.Bn_compute_blocks
        if self._warms_up and self.cache.max_warmup_steps >= steps:
            return f"cache.max_warmup_steps={self.cache.max_warmup_steps} leaves none of {steps} steps to be skipped"
        if self.threshold is not None and self.threshold <= 0:
            return f"cache.residual_diff_threshold={self.threshold:g} lets no step be skipped"
        if first + last >= n_blocks:
            named = f"cache.Fn_compute_blocks={first} and cache.Bn_compute_blocks={last}"
            return f"{named} compute all {n_blocks} blocks in every step"
        return None

    @property
    def _warms_up(self) -> bool:
        return True

    def _unused(self, steps: int) -> dict[str, Any]:
        """Parameters that decide nothing here, by what stands for any of their values; None: the default."""
        unused: dict[str, Any] = {}
        if not self.cache.enable_taylorseer:
            unused["taylorseer_order"] = None
        if self.cache.max_continuous_cached_steps >= self._most_in_a_row(steps):
            unused["max_continuous_cached_steps"] = -1
        return unused

    def _most_in_a_row(self, steps: int) -> int:
        """Steps that could be skipped one after another if nothing but warm-up forbade it; the first never is."""
        return steps - max(1, self.cache.max_warmup_steps)

    def forced_skips(self, steps: int) -> int:
        return 0

    def cached_blocks(self, n_blocks: int) -> int | None:
        return min(n_blocks, self.cache.Fn_compute_blocks + self.cache.Bn_compute_blocks)

    def scaled(self, from_layers: int, to_layers: int) -> CacheConfig:
        """The same share of the blocks computed in a cached step, everything else as it is.

        Fn and Bn are scaled by `to_layers / from_layers` and rounded; one that is at least 1 stays at least 1,
        and together they leave at least one block to skip (Bn gives way first).
        """
        counts = (self.cache.Fn_compute_blocks, self.cache.Bn_compute_blocks)
        first, last = (max(1, round(n * to_layers / from_layers)) if n > 0 else n for n in counts)
        last = min(last, max(0, to_layers - 1 - first))
        first = min(first, max(1, to_layers - 1 - last))
        return replace(self.cache, Fn_compute_blocks=first, Bn_compute_blocks=last)

    def cache_dit(self, steps: int) -> CacheDitArguments | None:
        cache = self.cache
        return CacheDitArguments(
            config={
                "Fn_compute_blocks": cache.Fn_compute_blocks,
                "Bn_compute_blocks": cache.Bn_compute_blocks,
                "max_warmup_steps": cache.max_warmup_steps,
                "residual_diff_threshold": cache.residual_diff_threshold,
                "max_continuous_cached_steps": cache.max_continuous_cached_steps,
            },
            taylorseer={"taylorseer_order": cache.taylorseer_order} if cache.enable_taylorseer else None,
        )

    def sglang_flags(self) -> SGLangPart:
        return SGLangPart(
            flags=("--enable-breakable-cuda-graph", "false"),
            notes=("SGLang's breakable CUDA graph is off: left to its default it may silently turn DBCache off.",),
        )

    def sglang_environment(self, devices: int) -> SGLangPart:
        values = {f"{SGLANG}{name}": _environment(getattr(self.cache, key)) for name, key in SGLANG_NAMES.items()}
        warned = "SGLang warns about DBCache together with several GPUs; compare its images before relying on it."
        return SGLangPart(
            environment={f"{SGLANG}ENABLED": spelled(True), **values},
            notes=(warned,) if devices > 1 else (),
            carries=("cache.method", *(f"cache.{key}" for key in SGLANG_NAMES.values())),
        )

    @property
    def _blocks(self) -> str:
        return f"F{self.cache.Fn_compute_blocks}B{self.cache.Bn_compute_blocks}"

    @property
    def _threshold(self) -> str:
        c = self.cache
        return f"_W{c.max_warmup_steps}_MC{c.max_continuous_cached_steps}_R{c.residual_diff_threshold:g}"

    @property
    def _extrapolated(self) -> str:
        return f"_T1O{self.cache.taylorseer_order}" if self.cache.enable_taylorseer else ""


def _environment(value: object) -> str:
    """A parameter as SGLang reads it."""
    if isinstance(value, bool):
        return spelled(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)
