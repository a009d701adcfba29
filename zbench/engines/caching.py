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

CUSTOM_CACHE = ("problem", "enable", "disable", "statistics", "effective")
"""What a class from outside must have; `zbench.methods.cache.custom.CustomCache` says what each does."""


class CacheSwitch:
    """The cache of one pipeline, off at first."""

    def __init__(self, pipe: Any, steps: int) -> None:
        """`pipe` is a diffusers pipeline that cache-dit knows, `steps` the forwards of every generation."""
        self._pipe = pipe
        self._steps = steps
        self._on = False
        self._own_forward: Any = None  # the transformer's instance attribute, if it had one
        self._custom: CustomCache | None = None  # what is on in place of cache-dit
        self._custom_name = ""

    @property
    def n_blocks(self) -> int:
        """Main blocks of the transformer, those DBCache can skip."""
        return len(self._pipe.transformer.layers)

    def set(self, cache: CacheConfig) -> None:
        """Make `cache` the setting for generations from now on. Raises ConfigError if it does not fit the pipeline."""
        self._off()
        method = method_of(cache)
        misfit = method.problem(self.n_blocks, self._steps, "the transformer")
        if misfit is not None:
            raise misfit.error()
        arguments = method.cache_dit(self._steps)
        if arguments is not None:
            self._enable_cache_dit(arguments)
        elif method.target is not None:
            self._enable_custom(method.target, method.parameters)
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

    def _enable_custom(self, target: str, options: dict[str, Any]) -> None:
        custom = load_custom(target)
        problem = custom.problem(options, self.n_blocks, self._steps)
        if problem is not None:
            raise ConfigError("cache.options", options, problem)
        self._custom = custom
        custom.enable(self._pipe, options, self._steps)

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

    def _off(self) -> None:
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
    """A cache method from outside. Raises ConfigError that names `cache.target` where it is none."""
    made = load_class("cache.target", target)
    lacking = [name for name in CUSTOM_CACHE if not callable(getattr(made, name, None))]
    if lacking:
        raise ConfigError("cache.target", target, f"is no cache method: it has no {', '.join(lacking)}")
    try:
        custom: CustomCache = made()
    except TypeError as error:
        raise ConfigError("cache.target", target, f"must be made without arguments ({error})") from error
    return custom
