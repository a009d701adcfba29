"""What is skipped: within each family of cache settings, the threshold (or the number of masked steps) that buys most.

A family is what one number parts: DBCache's settings of one Fn, Bn, warm-up and run length, by their threshold; forced
masks by the steps they skip. The larger the number the more is skipped, so the largest that keeps the limits is found
by bisection, about log2 of the values in trials. A family ends early where what is left of it cannot win.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from zbench.config import CacheConfig
from zbench.methods.cache import method_of
from zbench.methods.cache.bound import most_skips
from zbench.search import Asked
from zbench.search.bracket import bracket
from zbench.search.tune.judge import Judge, Told

CLOSE = 0.99
"""What cannot be cheaper than this share of the best is not tried: it would not be told apart."""


@dataclass(frozen=True)
class SkipFamily:
    """Cache settings that one number parts, the ones that skip least first."""

    name: str
    caches: tuple[CacheConfig, ...]
    steps: int

    @property
    def most(self) -> int:
        """Steps that any of it skips at most."""
        return max(most_skips(cache, self.steps) for cache in self.caches)


Measure = Callable[[SkipFamily, CacheConfig], Generator[list[Asked], None, Told | None]]
"""Measures a setting of a family where everything else is decided; None where it cannot work there, or where the budget
has no room for it."""


def families(caches: Sequence[CacheConfig], steps: int) -> list[SkipFamily]:
    """Every family of these settings; those that may skip most first, forced masks before all, as they say at once
    what a skipped step is worth."""
    found: dict[tuple[object, ...], list[CacheConfig]] = {}
    for cache in caches:
        if method_of(cache).skips:
            found.setdefault(_key(cache), []).append(cache)
    made = [
        SkipFamily(method_of(group[-1]).label, tuple(group), steps)
        for group in (sorted(each, key=lambda cache: _axis(cache, steps)) for each in found.values())
    ]
    return sorted(made, key=lambda family: (method_of(family.caches[0]).decider is not None, -family.most))


def _key(cache: CacheConfig) -> tuple[object, ...]:
    method = method_of(cache)
    moving = {"residual_diff_threshold"} | (set() if method.decider is not None else {"scm_preset"})
    fixed = tuple(sorted((k, repr(v)) for k, v in method.parameters.items() if k not in moving))
    return (method.choice, *fixed) if fixed else (method.choice, method.label)


def _axis(cache: CacheConfig, steps: int) -> float:
    threshold = method_of(cache).threshold
    return float(most_skips(cache, steps)) if threshold is None else threshold


@dataclass
class Skipping:
    """The search over skips on one base."""

    judge: Judge
    base: Told
    baseline: Callable[[], Told | None]
    best: Callable[[], Told | None]
    not_tried: dict[str, str]
    spoils_from: list[float]
    """Thresholds that spoilt images, the newest last: where the next family begins."""

    def run(self, every: Sequence[SkipFamily], measure: Measure) -> Generator[list[Asked], None, None]:
        """SkipFamily after family, each only while it can still win."""
        for family in every:
            if (why := self.cannot_win(family.most, family.steps)) is not None:
                self.not_tried[f"{family.name} and the like"] = why
                continue
            yield from self._bisect(family, measure)

    def cannot_win(self, skips: int, steps: int) -> str | None:
        """Why skipping `skips` of `steps` steps cannot beat the best: a bound by the base's own measured forward."""
        best = self.best()
        cost = self.judge.cost(self.base, self.baseline())
        least = cost * (1 - self.base.denoise_share * skips / steps)
        if best is None or least < self.judge.cost(best, self.baseline()) * CLOSE:
            return None
        ratio = cost / least if least > 0 else float("inf")
        return (
            f"skips {skips} of {steps} steps at most, which buys no more than {ratio:.2f}× over "
            f"{self.base.row.label}; {best.row.label} has {cost / self.judge.cost(best, self.baseline()):.2f}×"
        )

    def _bisect(self, family: SkipFamily, measure: Measure) -> Generator[list[Asked], None, None]:
        tried: dict[int, bool] = {}  # places, and whether they keep the limits
        kept, spoilt, place = -1, len(family.caches), self._first(family)
        while kept < place < spoilt:
            told = yield from measure(family, family.caches[place])
            if told is None:
                return
            tried[place] = self.judge.keeps_likeness(told)
            best, worse = bracket(tried.items())
            kept, spoilt = -1 if best is None else int(best), len(family.caches) if worse is None else int(worse)
            if tried[place]:
                if told.row.cached_steps is not None and told.row.cached_steps >= family.most:
                    return  # nothing of the family skips more
            else:
                self.spoils_from += [t for t in (method_of(family.caches[place]).threshold,) if t is not None]
                if spoilt - kept > 1 and self._is_no_cheaper(told):
                    self.not_tried[f"{family.name} and the like, below {told.row.label}"] = (
                        f"skip less than {told.row.label}, which is no faster than the best"
                    )
                    return
            place = (kept + spoilt) // 2

    def _first(self, family: SkipFamily) -> int:
        """The place that is tried first: where the family before began to spoil images, else the middle. Without a
        limit on images the last."""
        if not self.judge.limits_images:
            return len(family.caches) - 1
        thresholds = [method_of(cache).threshold for cache in family.caches]
        if not self.spoils_from or None in thresholds:
            return (len(family.caches) - 1) // 2
        below = [place for place, each in enumerate(thresholds) if each is not None and each < self.spoils_from[-1]]
        return min(len(below), len(thresholds) - 1)

    def _is_no_cheaper(self, told: Told) -> bool:
        """Whether even one that spoils images is no cheaper than the best: those that skip less cost more."""
        best, baseline = self.best(), self.baseline()
        if best is None or told.record.state != "COMPLETE":
            return False
        return self.judge.cost(told, baseline) >= self.judge.cost(best, baseline)
