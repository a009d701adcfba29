"""Switches cache-dit's DBCache on a resident pipeline on, over and off, and reads its statistics; it loads nothing.

cache-dit keeps the first configuration if it is enabled twice, so every change goes through off. Off restores the
transformer's `forward` itself: under offloading, cache-dit loses accelerate's hook and fails on diffusers' own.
It marks the pipeline's class too, so of all pipelines of a class in one process only one may be cached at a time.
"""

from typing import Any

import cache_dit

from zbench.config import CacheConfig, DBCacheConfig, SCMConfig
from zbench.errors import ConfigError


class CacheSwitch:
    """The cache of one pipeline, off at first."""

    def __init__(self, pipe: Any) -> None:
        """`pipe` is a diffusers pipeline that cache-dit knows."""
        self._pipe = pipe
        self._on = False
        self._own_forward: Any = None  # the transformer's instance attribute, if it had one

    @property
    def n_blocks(self) -> int:
        """Main blocks of the transformer, those DBCache can skip."""
        return len(self._pipe.transformer.layers)

    def set(self, cache: CacheConfig, steps: int) -> None:
        """Make `cache` the setting for generations of `steps` forwards from now on.

        Raises ConfigError if it does not fit the pipeline or the steps; then it is off.
        """
        self.off()
        if not isinstance(cache, DBCacheConfig):
            return
        self._check(cache)
        config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=cache.Fn_compute_blocks,
            Bn_compute_blocks=cache.Bn_compute_blocks,
            max_warmup_steps=cache.max_warmup_steps,
            residual_diff_threshold=cache.residual_diff_threshold,
            max_continuous_cached_steps=cache.max_continuous_cached_steps,
            **_mask(cache, steps),
        )
        calibrator = None
        if cache.enable_taylorseer:
            calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=cache.taylorseer_order)
        self._own_forward = vars(self._pipe.transformer).get("forward")
        self._on = True
        cache_dit.enable_cache(self._pipe, cache_config=config, calibrator_config=calibrator)

    def statistics(self) -> tuple[list[int], dict[str, float]]:
        """Of the last generation: indices of cached steps, and residual differences by step.

        A threshold of 1 or more makes cache-dit skip the comparison and note −1; those are left out.
        """
        if not self._on:
            return [], {}
        stats = cache_dit.summary(self._pipe, logging=False)[0]
        diffs = {str(step): float(diff) for step, diff in stats.residual_diffs.items()}
        return [int(step) for step in stats.cached_steps], {step: diff for step, diff in diffs.items() if diff >= 0}

    def effective(self) -> dict[str, Any]:
        """The parameters as cache-dit holds them; empty while off."""
        if not self._on:
            return {}
        options = cache_dit.summary(self._pipe, logging=False)[0].cache_options
        config = {key: value for key, value in options["cache_config"].as_dict().items() if value is not None}
        config["cache_type"] = str(config["cache_type"])
        calibrator = options.get("calibrator_config")
        return config | {"calibrator": None if calibrator is None else calibrator.strify()}

    def off(self) -> None:
        """Skip nothing from now on, as if there had never been a cache."""
        if not self._on:
            return
        transformer = self._pipe.transformer
        transformer._original_forward = type(transformer).forward  # bound by cache-dit, which an offload hook's is not
        cache_dit.disable_cache(self._pipe)
        if self._own_forward is None:
            vars(transformer).pop("forward", None)
        else:
            transformer.forward = self._own_forward
        self._own_forward = None
        self._on = False

    def _check(self, cache: DBCacheConfig) -> None:
        blocks = cache.Fn_compute_blocks + cache.Bn_compute_blocks
        if blocks > self.n_blocks:
            raise ConfigError(
                "cache.Fn_compute_blocks+cache.Bn_compute_blocks",
                blocks,
                f"the transformer has {self.n_blocks} blocks; use at most that many",
            )


def _mask(cache: DBCacheConfig, steps: int) -> dict[str, Any]:
    if not isinstance(cache, SCMConfig):
        return {}
    try:
        mask = cache_dit.steps_mask(mask_policy=cache.scm_preset, total_steps=steps)
    except (AssertionError, ValueError) as error:
        raise ConfigError("cache.scm_preset", cache.scm_preset, f"pipeline.steps={steps}: {error}") from error
    return {"steps_computation_mask": mask, "steps_computation_policy": cache.scm_policy}
