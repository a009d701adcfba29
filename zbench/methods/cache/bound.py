"""What a cache setting can skip at most, whatever the residual differences are: a bound, never a forecast."""

from zbench.config import CacheConfig
from zbench.methods.cache import method_of
from zbench.methods.cache.scm import STEP_MASKS


def most_skips(cache: CacheConfig, steps: int) -> int:
    """Of `steps` steps, so many are skipped at most.

    DBCache computes its warm-up, and then one step after each `max_continuous_cached_steps`. A mask skips what it
    does not compute. A method that says nothing of its parameters computes the first step.
    """
    method = method_of(cache)
    if not method.skips:
        return 0
    if (mask := method.parameters.get("steps_mask")) is not None:
        return str(mask).count("0")
    if (preset := method.parameters.get("scm_preset")) is not None:
        return STEP_MASKS.get(steps, {}).get(preset, steps - 1)
    warm_up: int | None = method.parameters.get("max_warmup_steps")
    in_a_row: int | None = method.parameters.get("max_continuous_cached_steps")
    if warm_up is None or in_a_row is None:
        return steps - 1
    left = max(0, steps - max(1, warm_up))
    return left if in_a_row < 0 else left - left // (in_a_row + 1)
