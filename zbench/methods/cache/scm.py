"""Step computation masks: a preset of cache-dit, or a mask of one's own, says which steps may be skipped, or, forced,
which are."""

from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

from zbench.config import CacheConfig, CustomCacheConfig, DBCacheConfig, SCMConfig
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
        named = self.cache.steps_mask or self.cache.scm_preset
        if self.is_forced:
            return f"forced_{named}_{self._blocks}{self._extrapolated}"
        return f"SCM_{named}_{super().label}"

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
        mask = self.cache.steps_mask
        if found is None and mask is not None:
            fits = len(mask) == steps
            return None if fits else Misfit({"cache.steps_mask": mask}, f"is of {len(mask)} steps, not of {steps}")
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
        unused |= {} if self.cache.steps_mask is None else {"scm_preset": None}
        forced = {"residual_diff_threshold": None, "max_continuous_cached_steps": -1}
        return unused | (forced if self.is_forced else {})

    def _most_in_a_row(self, steps: int) -> int:
        """Those that a mask of one's own leaves; what a preset's leaves is cache-dit's to say."""
        mask = self.cache.steps_mask
        return steps - 1 if mask is None else max(map(len, mask.split("1")))

    def _idle(self, n_blocks: int, steps: int) -> str | None:
        mask = self.cache.steps_mask
        if mask is not None and "0" not in mask:
            return f"cache.steps_mask={mask} computes every step"
        return super()._idle(n_blocks, steps)

    @property
    def parameters(self) -> dict[str, Any]:
        """Without a mask of one's own the preset decides, and with one it means nothing."""
        unused = "steps_mask" if self.cache.steps_mask is None else "scm_preset"
        return {key: value for key, value in super().parameters.items() if key != unused}

    def forced_skips(self, steps: int) -> int:
        if self.is_forced and self.cache.steps_mask is not None:
            return self.cache.steps_mask.count("0")
        return STEP_MASKS.get(steps, {}).get(self.cache.scm_preset, 0) if self.is_forced else 0

    def cache_dit(self, steps: int) -> CacheDitArguments | None:
        made = super().cache_dit(steps)
        assert made is not None
        config = {**made.config, "steps_computation_policy": self.cache.scm_policy}
        if self.cache.steps_mask is not None:
            return replace(made, config={**config, "steps_computation_mask": [int(d) for d in self.cache.steps_mask]})
        return replace(made, config=config, mask={"mask_policy": self.cache.scm_preset, "total_steps": steps})

    def sglang_environment(self, devices: int) -> SGLangPart:
        made = super().sglang_environment(devices)
        mask = self.cache.steps_mask
        values = {f"{SGLANG}SCM_PRESET": self.cache.scm_preset} if mask is None else sglang_bins(mask)
        values |= {f"{SGLANG}SCM_POLICY": self.cache.scm_policy}
        note = "The step mask depends on the number of steps, so the request must keep num_inference_steps."
        carries = (*made.carries, "cache.scm_preset", "cache.steps_mask", "cache.scm_policy")
        forced = (FIRST_REQUEST_ALONE,) if self.is_forced else ()
        notes = (note, *forced, *made.notes)
        return replace(made, environment={**made.environment, **values}, notes=notes, carries=carries)


def sglang_bins(mask: str) -> dict[str, str]:
    """A mask as SGLang's environment has it: lengths of the runs of computed steps, and of the skipped ones after each.

    cache-dit's `steps_mask` makes the mask of them again, a computed run first; the last has no skipped one after it
    where the mask ends computed. With nothing to skip there are no bins, and so no mask.
    """
    runs = [(digit, str(len(list(steps)))) for digit, steps in groupby(mask)]
    if len(runs) == 1:
        return {f"{SGLANG}SCM_PRESET": "none"}
    return {
        f"{SGLANG}SCM_COMPUTE_BINS": ",".join(length for digit, length in runs if digit == "1"),
        f"{SGLANG}SCM_CACHE_BINS": ",".join(length for digit, length in runs if digit == "0"),
    }


def every_mask(steps: int) -> list[str]:
    """Each mask of `steps` that computes the first, those that compute most first."""
    masks = ["1" + "".join(rest) for rest in product("10", repeat=steps - 1)]
    return sorted(masks, key=lambda mask: -mask.count("1"))


def with_mask(cache: CacheConfig, mask: str) -> CacheConfig | None:
    """The setting that skips by `mask` alone, with the first and last blocks and the TaylorSeer of `cache`; nothing is
    skipped where the mask skips nothing. None: `cache` is from outside zbench, and takes no mask.
    """
    if "0" not in mask and not isinstance(cache, CustomCacheConfig):
        return CacheConfig()
    forced = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", steps_mask=mask)
    if isinstance(cache, DBCacheConfig):
        forced = replace(
            forced,
            Fn_compute_blocks=cache.Fn_compute_blocks,
            Bn_compute_blocks=cache.Bn_compute_blocks,
            enable_taylorseer=cache.enable_taylorseer,
            taylorseer_order=cache.taylorseer_order,
        )
    return None if isinstance(cache, CustomCacheConfig) else forced
