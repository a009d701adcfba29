"""Switches a cache method on a resident pipeline on, over and off, and reads its statistics; it loads no weights.

Zbench's own methods are cache-dit's; one from outside is a class that switches itself.

cache-dit keeps the first configuration if it is enabled twice, so every change goes through off. Off restores the
transformer's `forward` itself: under offloading, cache-dit loses accelerate's hook and fails on diffusers' own.
It marks the pipeline's class too, so of all pipelines of a class in one process only one may be cached at a time.
"""

from typing import Any

import cache_dit

from zbench.config import CacheConfig
from zbench.errors import ConfigError
from zbench.methods.cache import CacheDitArguments, method_of
from zbench.methods.cache.custom import CustomCache
from zbench.plugins import load_class


class CacheSwitch:
    """The cache of one pipeline, off at first."""

    def __init__(self, pipe: Any) -> None:
        """`pipe` is a diffusers pipeline that cache-dit knows."""
        self._pipe = pipe
        self._on = False
        self._own_forward: Any = None  # the transformer's instance attribute, if it had one
        self._custom: CustomCache | None = None  # what is on in place of cache-dit
        self._custom_name = ""

    @property
    def n_blocks(self) -> int:
        """Main blocks of the transformer, those DBCache can skip."""
        return len(self._pipe.transformer.layers)

    def set(self, cache: CacheConfig, steps: int) -> None:
        """Make `cache` the setting for generations of `steps` forwards from now on.

        Raises ConfigError if it does not fit the pipeline or the steps; then it is off.
        """
        self.off()
        method = method_of(cache)
        misfit = method.problem(self.n_blocks, steps, "the transformer")
        if misfit is not None:
            raise misfit.error()
        arguments = method.cache_dit(steps)
        if arguments is not None:
            self._enable_cache_dit(arguments)
        elif method.target is not None:
            self._enable_custom(method.target, method.parameters, steps)
            self._custom_name = cache.method

    def _enable_cache_dit(self, arguments: CacheDitArguments) -> None:
        config = dict(arguments.config)
        if arguments.mask:
            config["steps_computation_mask"] = cache_dit.steps_mask(**arguments.mask)
        calibrator = None
        if arguments.taylorseer is not None:
            calibrator = cache_dit.TaylorSeerCalibratorConfig(**arguments.taylorseer)
        self._own_forward = vars(self._pipe.transformer).get("forward")
        self._on = True
        cache_dit.enable_cache(self._pipe, cache_config=cache_dit.DBCacheConfig(**config), calibrator_config=calibrator)

    def _enable_custom(self, target: str, options: dict[str, Any], steps: int) -> None:
        custom = load_custom(target)
        problem = custom.problem(options, self.n_blocks, steps)
        if problem is not None:
            raise ConfigError("cache.options", options, problem)
        self._custom = custom
        custom.enable(self._pipe, options, steps)

    def statistics(self) -> tuple[list[int], dict[str, float]]:
        """Of the last generation: indices of cached steps, and residual differences by step.

        A threshold of 1 or more makes cache-dit skip the comparison and note −1; those are left out.
        """
        if self._custom is not None:
            skipped, differences = self._custom.statistics(self._pipe)
            return [int(step) for step in skipped], {str(step): float(diff) for step, diff in differences.items()}
        if not self._on:
            return [], {}
        stats = cache_dit.summary(self._pipe, logging=False)[0]
        diffs = {str(step): float(diff) for step, diff in stats.residual_diffs.items()}
        return [int(step) for step in stats.cached_steps], {step: diff for step, diff in diffs.items() if diff >= 0}

    def effective(self) -> dict[str, Any]:
        """The parameters as cache-dit holds them, or as a method from outside says; empty while off."""
        if self._custom is not None:
            return {"method": self._custom_name, **self._custom.effective(self._pipe)}
        if not self._on:
            return {}
        options = cache_dit.summary(self._pipe, logging=False)[0].cache_options
        config = {key: value for key, value in options["cache_config"].as_dict().items() if value is not None}
        config["cache_type"] = str(config["cache_type"])
        calibrator = options.get("calibrator_config")
        return config | {"calibrator": None if calibrator is None else calibrator.strify()}

    def off(self) -> None:
        """Skip nothing from now on, as if there had never been a cache."""
        if self._custom is not None:
            custom, self._custom = self._custom, None
            custom.disable(self._pipe)
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


def load_custom(target: str) -> CustomCache:
    """A cache method from outside. Raises ConfigError that names `cache.target` where it is none.

    Whether it may run was asked before (`plugins.check_targets`), by the sweep and by the worker.
    """
    made = load_class("cache", "cache.target", target, CustomCache, allow_code=True)
    try:
        custom: CustomCache = made()
    except TypeError as error:
        raise ConfigError("cache.target", target, f"must be made without arguments ({error})") from error
    return custom
