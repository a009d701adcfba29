"""The decisions of `tune` for one piece of work, in their order, each by measurement with what the one before left."""

from collections.abc import Generator, Sequence
from dataclasses import replace

from zbench.config import CacheConfig, OffloadConfig, ParallelConfig
from zbench.methods.cache import method_of
from zbench.methods.cache.bound import most_skips
from zbench.methods.offload import MOVING_MORE
from zbench.methods.parallel import ParallelDims
from zbench.search import Asked
from zbench.search.tune.again import second_look
from zbench.search.tune.decide import Batches, Decider, computed_as
from zbench.search.tune.judge import Told
from zbench.search.tune.skips import families
from zbench.search.tune.validate import validate
from zbench.trial import Trial, on_devices, unsharded


def decisions(decider: Decider) -> Batches:
    """Every decision, as far as trials can work and the budget has room; it gives batches of what is to be told."""
    base = yield from _fit(decider)
    if base is None:
        return
    base = yield from _compute(decider, base)
    base = yield from _devices(decider, base)
    yield from _skipping(decider, base)
    yield from _second_look(decider, base)
    decider.question = "held out"
    yield from validate(decider)


def _fit(decider: Decider) -> Generator[list[Asked], None, Told | None]:
    first, fits = decider.choices.base, decider.fitting
    fitting = fits.fitted(first)
    if fitting is None:  # another way to compute may need less
        others = (fits.fitted(computed_as(first, compute)) for compute in decider.choices.computes)
        fitting = next((trial for trial in others if trial is not None), None)
    if fitting is None:
        decider.decide("fit", f"nothing is predicted to fit into {fits.limit_gib or 0:g} GiB", None, None)
        return None
    held = yield from decider.measure(fitting)
    while held is not None and (following := fits.moving_more(held.trial)) is not None:
        if held.trial.offload.mode == MOVING_MORE[0].name:
            break  # nothing waits, and what moves more is no faster
        other = yield from decider.measure(following)
        if other is None or decider.judge.best([held, other], decider.baseline) is not other:
            break
        held = other
    if held is None:
        if not decider.cut("fit"):
            decider.decide("fit", f"{fitting.label} cannot work", None, None)
        return None
    decider.decide("fit", _fit_said(decider, held), None, held)
    return held


def _compute(decider: Decider, base: Told) -> Generator[list[Asked], None, Told]:
    decider.question = "compute"
    computes = [c for c in decider.choices.computes if c != unsharded(base.trial).compute]
    if not computes:
        decider.decide("compute", f"nothing to decide: {_of_compute(base.trial)} is the one choice", base, base)
        return base
    tried, chosen = yield from _best_of(decider, base, [computed_as(base.trial, compute) for compute in computes])
    decider.decide("compute", f"{_of_compute(chosen.trial)}{_beside(decider, tried, chosen)}", base, chosen)
    return chosen


def _devices(decider: Decider, base: Told) -> Generator[list[Asked], None, Told]:
    decider.question = "devices"
    objective = decider.judge.objective
    others = [p for p in decider.choices.parallels if p != base.trial.parallel]
    if objective != "throughput":
        for sideways in [p for p in others if ParallelDims.of(p).dp > 1]:
            label = on_devices(base.trial, sideways).label
            decider.not_tried[label] = f"makes images side by side, and --objective {objective} is of one"
            others.remove(sideways)
    if not others:
        count = ParallelDims.of(base.trial.parallel).devices
        one = "one device: nothing to decide" if count == 1 else f"nothing to decide: {count} devices, one split"
        decider.decide("devices", one, base, base)
        return base
    tried, chosen = yield from _best_of(decider, base, [on_devices(base.trial, parallel) for parallel in others])
    count = ParallelDims.of(chosen.trial.parallel).devices
    said = f"{count} device{'s' if count > 1 else ''}{_beside(decider, tried, chosen)}"
    decider.decide("devices", said, base, chosen)
    return chosen


def _best_of(
    decider: Decider, base: Told, others: Sequence[Trial]
) -> Generator[list[Asked], None, tuple[list[Told], Told]]:
    """`base` and those of the others that could be tried, and the best of them."""
    wanted = [decider.fitting.fitted(each) for each in others]
    tried = yield from decider.measure_all([trial for trial in wanted if trial is not None])
    every = [base, *tried]
    return every, decider.judge.best(every, decider.baseline) or base


def _skipping(decider: Decider, base: Told) -> Batches:
    decider.question = "skipping"
    every = families(decider.choices.caches, base.trial.pipeline.steps)
    if not every:
        decider.decide("skipping", "nothing to decide: no cache setting was asked for", base, base)
        return
    before = decider.heard
    if decider.inner is None:
        yield from decider.skips(base).run(every, decider.with_cache(base))
    else:
        yield from decider.inner(decider, base)
    if decider.heard > before or not decider.cut("skipping"):
        best = decider.best or base
        decider.decide("skipping", _skipped_said(best), base, best)


def _second_look(decider: Decider, base: Told) -> Batches:
    decider.question = "second look"
    before, best_before = decider.heard, decider.best or base
    yield from second_look(decider, base)
    if decider.heard > before:
        after = decider.best or base
        said = "it stays" if after is best_before else after.row.label
        decider.decide("second look", said, best_before, after)


# What is said


def _fit_said(decider: Decider, held: Told) -> str:
    if len(decider.choices.offloads) == 1:
        return f"nothing to decide: offload={held.trial.offload.mode} is the one choice"
    gib, limit_gib = decider.fitting.predict(held.trial), decider.fitting.limit_gib
    predicted = "" if gib is None or limit_gib is None else f"; {gib:.1f} of {limit_gib:g} GiB predicted"
    return f"offload={held.trial.offload.mode}{predicted}"


def _skipped_said(best: Told) -> str:
    method, steps = method_of(best.trial.cache), best.trial.pipeline.steps
    if not method.skips:
        return "nothing: no setting that was tried is faster and keeps the limits"
    mean = "" if best.row.cached_steps is None else f", {best.row.cached_steps:g} of {steps} steps an image"
    return f"{method.label}{mean} ({most_skips(best.trial.cache, steps)} at most)"


def _beside(decider: Decider, tried: Sequence[Told], chosen: Told) -> str:
    """What the others have over the first, such as `; beside it compiled 1.10×`."""
    parts = []
    for told in tried:
        if told is chosen:
            continue
        factor = decider.judge.factor(tried[0], told, decider.baseline) if told.is_measured else None
        standing = "" if decider.judge.allows(told) else " (misses a limit)"
        figure = f"{factor.ratio:.2f}×" if factor is not None else _no_figure(told)
        parts.append(f"{_short(told.trial)} {figure}{standing if factor is not None else ''}")
    return f"; beside it {', '.join(parts)}" if parts else ""


def _no_figure(told: Told) -> str:
    return "failed" if told.record.state != "COMPLETE" else "is not to be trusted"


def _of_compute(trial: Trial) -> str:
    """How it computes, such as `compiled`."""
    return _short(replace(trial, offload=OffloadConfig(), parallel=ParallelConfig(), cache=CacheConfig()))


def _short(trial: Trial) -> str:
    return " ".join(trial.label.split(" ")[1:]) or "eager"
