"""Step computation masks: a preset of cache-dit says which steps may be skipped, or, forced, which are."""

from dataclasses import dataclass, replace
from typing import Any

from zbench.config import SCMConfig
from zbench.methods.cache.dbcache import CacheDitArguments, DBCache
from zbench.methods.cache.none import SGLANG
from zbench.methods.misfit import Misfit
from zbench.methods.sglang import SGLangPart

STEP_MASKS = {
    8: {"slow": 1, "medium": 2, "fast": 3, "ultra": 4},
    9: {"slow": 1, "medium": 2, "fast": 3, "ultra": 4},
    50: {"slow": 12, "medium": 21, "fast": 30, "ultra": 36},
}
"""Steps that cache-dit's masks (`steps_mask`) skip, by the steps of an image that people use."""

FIRST_REQUEST_ALONE = (
    "SGLang 0.5.15.post1 held a forced mask (cache.scm_policy=static) for its first request alone; afterwards the "
    "threshold decided."
)

LEAST_STEPS, FEWER = 8, (4, 6)
"""cache-dit has masks for so many steps or more, and for these."""


@dataclass(frozen=True)
class StepMask(DBCache):
    """See `zbench.methods.cache.CacheMethod`. What a mask leaves to it is DBCache's."""

    cache: SCMConfig

    @property
    def is_forced(self) -> bool:
        """Whether the mask alone decides which steps are skipped."""
        return self.cache.scm_policy == "static"

    @property
    def label(self) -> str:
        """A forced mask decides alone, so its label leaves the threshold's parameters out."""
        if self.is_forced:
            return f"forced_{self.cache.scm_preset}_{self._blocks}{self._extrapolated}"
        return f"SCM_{self.cache.scm_preset}_{super().label}"

    @property
    def choice(self) -> str:
        return "forced" if self.is_forced else "scm"

    @property
    def decider(self) -> str | None:
        return None if self.is_forced else super().decider

    @property
    def threshold(self) -> float | None:
        return None if self.is_forced else super().threshold

    @property
    def compared_by(self) -> tuple[object, ...] | None:
        """A mask hides steps from the comparison."""
        return None

    def problem(self, n_blocks: int, steps: int, whose: str) -> Misfit | None:
        found = super().problem(n_blocks, steps, whose)
        if found is None and steps < LEAST_STEPS and steps not in FEWER:
            there_are = f"{', '.join(map(str, FEWER))} and {LEAST_STEPS} steps or more"
            return Misfit(
                {"cache.scm_preset": self.cache.scm_preset}, f"there are masks for {there_are}, not for {steps}"
            )
        return found

    @property
    def _warms_up(self) -> bool:
        """cache-dit cuts warm-up to the steps that a mask computes at its beginning anyway."""
        return False

    def _unused(self, steps: int) -> dict[str, Any]:
        """A forced mask asks neither for a threshold nor for how many steps in a row."""
        unused = super()._unused(steps) | {"max_warmup_steps": 0}
        forced = {"residual_diff_threshold": None, "max_continuous_cached_steps": -1}
        return unused | (forced if self.is_forced else {})

    def forced_skips(self, steps: int) -> int:
        return STEP_MASKS.get(steps, {}).get(self.cache.scm_preset, 0) if self.is_forced else 0

    def cache_dit(self, steps: int) -> CacheDitArguments | None:
        made = super().cache_dit(steps)
        assert made is not None
        config = {**made.config, "steps_computation_policy": self.cache.scm_policy}
        return replace(made, config=config, mask={"mask_policy": self.cache.scm_preset, "total_steps": steps})

    def sglang_environment(self, devices: int) -> SGLangPart:
        made = super().sglang_environment(devices)
        values = {f"{SGLANG}SCM_PRESET": self.cache.scm_preset, f"{SGLANG}SCM_POLICY": self.cache.scm_policy}
        note = "The step mask depends on the number of steps, so the request must keep num_inference_steps."
        carries = (*made.carries, "cache.scm_preset", "cache.scm_policy")
        forced = (FIRST_REQUEST_ALONE,) if self.is_forced else ()
        notes = (note, *forced, *made.notes)
        return replace(made, environment={**made.environment, **values}, notes=notes, carries=carries)
