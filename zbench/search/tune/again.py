"""A second look at what `tune` decided against before it knew what skipping buys, and at what the budget put off.

Another way to compute that lost alone may win with skipping: it keeps more of the limit on images, or allows skips that
the chosen one cannot have.
"""

import math
from collections.abc import Sequence

from zbench.methods.cache import method_of
from zbench.search.tune.decide import Batches, Decider, computed_as
from zbench.search.tune.judge import Told
from zbench.search.tune.skips import CLOSE, SkipFamily, families
from zbench.trial import Trial, on_devices, unsharded

MORE_THAN_SEEN = 0.8
"""Another way to compute, whose images are better, may skip more than was seen: to this share of the least time."""


def second_look(decider: Decider, base: Told) -> Batches:
    """Only those that can still win, the most hopeful first; what was put off, if there is room for it now."""
    judge, computes = decider.judge, [c for c in decider.choices.computes if c != unsharded(base.trial).compute]
    lossless = base.row.is_reference or base.row.is_unchanged or not judge.limits_images
    every = families(decider.choices.caches, base.trial.pipeline.steps)
    working = [family for family in every if decider.works(base, family)]
    own = [family for family in every if not lossless or family.name in decider.cut_short or family not in working]
    if decider.inner is not None:
        own = [] if working else own
    fitting = [decider.fitting.fitted(computed_as(base.trial, compute), note=False) for compute in computes]
    expected = [(plain, _expected(decider, plain, base)) for plain in fitting if plain is not None]
    for plain, cost in sorted(expected, key=lambda pair: pair[1]):
        late = [each for each in decider.cut("compute") if unsharded(each.trial).compute == unsharded(plain).compute]
        wins = bool(own) and cost < math.inf and bool(_hopeful(decider, own, base, cost, plain))
        if not late and not wins:
            continue  # what failed, or was left out before, has its reason already
        held = yield from decider.measure(plain)
        if held is None:
            continue
        for each in late:
            decider.put_off.pop(each.trial.trial_id, None)
        if not judge.allows(held):
            continue
        if decider.inner is None:
            hopeful = _hopeful(decider, every if late else own, base, judge.cost(held, decider.baseline), plain)
            yield from decider.skips(held).run(hopeful, decider.with_cache(held))
        elif own:
            yield from decider.inner(decider, held)
            break
    for each in decider.cut("devices"):
        best = decider.best or base
        other = decider.fitting.fitted(on_devices(best.trial, each.trial.parallel))
        if other is not None and (yield from decider.measure(other)) is not None:
            decider.put_off.pop(each.trial.trial_id, None)


def _expected(decider: Decider, plain: Trial, base: Told) -> float:
    """What it costs, or would on the devices of `base` by what it cost on others; infinite where unknown."""
    judge, baseline = decider.judge, decider.baseline
    if plain.trial_id in decider.told:
        return judge.cost(decider.told[plain.trial_id], baseline)
    every = [told for told in decider.told.values() if not method_of(told.trial.cache).skips]
    for own in (told for told in every if unsharded(told.trial).compute == unsharded(plain).compute):
        for other in (told for told in every if unsharded(told.trial).compute == unsharded(base.trial).compute):
            if other.trial.parallel == own.trial.parallel and judge.cost(other, baseline) > 0:
                return judge.cost(own, baseline) / judge.cost(other, baseline) * judge.cost(base, baseline)
    return math.inf


def _hopeful(decider: Decider, every: Sequence[SkipFamily], base: Told, cost: float, plain: Trial) -> list[SkipFamily]:
    """Of these families those that may win where nothing skipped costs so much: as much as they saved on `base`, where
    they were tried there, else as much as they can at most."""
    best = decider.best
    goal = math.inf if best is None else decider.judge.cost(best, decider.baseline) * CLOSE
    hopeful = [family for family in every if cost * _least_share(decider, family, base) < goal]
    if not hopeful and best is not None:
        why = f"with the most skipping that was seen it would be no faster than {best.row.label}"
        decider.not_tried.setdefault(f"{plain.label} with skipping", why)
    return hopeful


def _least_share(decider: Decider, family: SkipFamily, base: Told) -> float:
    """Of the time without skipping what is left at least: by what the family can skip, and by somewhat more than the
    most that any setting saved on `base`, also one that spoilt images."""
    judge, baseline = decider.judge, decider.baseline
    bound = 1 - base.denoise_share * family.most / family.steps
    how, whole = (base.trial.compute, base.trial.parallel), judge.cost(base, baseline)
    alike = [told for told in decider.told.values() if (told.trial.compute, told.trial.parallel) == how]
    seen = min((judge.cost(told, baseline) for told in alike if told.has_images), default=whole) / whole
    return max(bound, MORE_THAN_SEEN * seen) if seen < 1 else bound
