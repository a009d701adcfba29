"""In which order step masks are tried: all of them, by greed and annealing, or at random; it runs nothing.

A mask is a digit a step, 1 where the step is computed; the first always is. A walk is an iterator: it gives each mask
once, and None while it waits for what was given before. What it does follows from its seed and from what masks are
worth alone, so that the same walk is made again from the same journal.
"""

import math
import random
from collections.abc import Callable, Iterator

from zbench.methods.cache.scm import every_mask

Worth = Callable[[str], float | None]
"""How like the reference's the images of a mask are, the worst of them; -inf where it FAILED. None: not known yet."""

HOT, COLD = 0.05, 0.001
"""Losses of likeness that annealing takes with a chance of 1/e, at its beginning and at its end."""

STALE = 1000
"""Moves in a row to masks that were tried before: then there is hardly any other."""


def exhaustive(steps: int) -> Iterator[str | None]:
    """Every mask that skips a step, those that compute most first: 2^(steps - 1) - 1."""
    yield from every_mask(steps)[1:]


def drawn(steps: int, most: int, seed: int) -> Iterator[str | None]:
    """At most so many masks at random; each number of computed steps is as likely as any other."""
    rng, tried, stale = random.Random(seed), set[str](), 0
    while len(tried) < most and stale < STALE:
        computed = {0, *rng.sample(range(1, steps), rng.randrange(steps - 1))}
        mask = "".join("1" if step in computed else "0" for step in range(steps))
        stale += 1
        if mask not in tried:
            stale = 0
            tried.add(mask)
            yield mask


def greedy(steps: int, most: int, seed: int, worth: Worth) -> Iterator[str | None]:
    """From computing every step, the step goes next whose loss is least; then annealing, `most` masks in all.

    Not every step is tried each time (Minoux's lazy greedy, 1978): steps are taken in the order of what they cost when
    they were last tried, until none that is left was cheaper then than the cheapest is now.
    """
    tried: dict[str, None] = {}
    current, value = "1" * steps, 1.0
    losses = dict.fromkeys(range(1, steps), -math.inf)  # a step to what it cost last; not tried yet: it comes first
    while losses and len(tried) < most:
        fresh: dict[int, float] = {}
        while len(tried) < most:
            stale = sorted((loss, step) for step, loss in losses.items() if step not in fresh)
            if not stale or (fresh and min(fresh.values()) <= stale[0][0]):
                break
            step = stale[0][1]
            mask = _flipped(current, step)
            if mask not in tried:
                tried[mask] = None
                yield mask
            while (found := worth(mask)) is None:
                yield None
            fresh[step] = losses[step] = value - found
        if not fresh:
            break
        gone = min(fresh, key=lambda step: (fresh[step], step))
        current, value = _flipped(current, gone), value - fresh[gone]
        del losses[gone]
        if value == -math.inf:
            break
    yield from _annealed(tried, most, seed, worth)


def _annealed(tried: dict[str, None], most: int, seed: int, worth: Worth) -> Iterator[str | None]:
    """From masks that were tried, by moves that compute one step more, one less, or another one.

    What a mask lacks is what its worth is below the best of as many computed steps, so that the walk goes along the
    whole front.
    """
    rng, best = random.Random(seed), dict[int, float]()
    for mask in tried:
        best[mask.count("1")] = max(best.get(mask.count("1"), -math.inf), worth(mask) or 0.0)
    if not tried or len(next(iter(tried))) < 3:
        return
    current, stale = rng.choice(sorted(tried)), 0
    while stale < STALE:
        temperature = HOT * (COLD / HOT) ** (len(tried) / most)
        mask = _moved(current, rng)
        stale += 1
        if mask not in tried:
            if len(tried) >= most:
                return
            stale = 0
            tried[mask] = None
            yield mask
            while worth(mask) is None:
                yield None
        lacks, lacked = (_lack(each, best, worth) for each in (mask, current))
        if lacks <= lacked or rng.random() < math.exp((lacked - lacks) / temperature):
            current = mask


def _lack(mask: str, best: dict[int, float], worth: Worth) -> float:
    computed, value = mask.count("1"), worth(mask)
    value = -math.inf if value is None else value
    best[computed] = max(best.get(computed, -math.inf), value)
    return 0.0 if value == best[computed] else best[computed] - value


def _moved(mask: str, rng: random.Random) -> str:
    """With one step changed, or a computed and a skipped one exchanged; one step at least stays skipped."""
    steps = range(1, len(mask))
    computed, skipped = ([step for step in steps if mask[step] == digit] for digit in "10")
    if computed and skipped and rng.random() < 0.5:
        return _flipped(_flipped(mask, rng.choice(computed)), rng.choice(skipped))
    return _flipped(mask, rng.choice(computed if len(skipped) < 2 else list(steps)))


def _flipped(mask: str, step: int) -> str:
    return f"{mask[:step]}{'0' if mask[step] == '1' else '1'}{mask[step + 1 :]}"
