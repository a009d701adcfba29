"""Requests of two trials that took turns, side by side, and how much faster the one is."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from zbench.config import WorkloadConfig
from zbench.measurement import SUSPENDED, Request
from zbench.stats import SpeedUp, median, speedup_by_few_turns, speedup_by_turns, whole_over_each

Image = tuple[str, int]
Place = tuple[int | None, Image, int]

FEWEST = 2
"""Turns of a companion that sat out others, for a speed-up: of two the one that took less counts, if they lie apart."""


def side_by_side_s(own: Iterable[Request], beside: Iterable[Request]) -> list[tuple[Image, float, float]]:
    """Image (prompt id and seed), its own seconds and the companion's of the same turn, where both requests count.

    In a turn both make the same images in the same order. In older records, which number no turns, both have as many
    turns of an image, so the first belongs to the first. What was made again is no turn.
    """
    theirs = _by_place(beside)
    return [
        (_image(r), r.latency_s, theirs[place].latency_s)
        for place, r in _by_place(own).items()
        if place in theirs and r.valid and theirs[place].valid
    ]


def sat_out(own: Iterable[Request], beside: Iterable[Request]) -> bool:
    """Whether the companion had no part in some of the trial's turns."""
    return not _by_place(own).keys() <= _by_place(beside).keys()


def speedup_beside(own: Sequence[Request], beside: Sequence[Request], workload: WorkloadConfig) -> SpeedUp | None:
    """How much less time a trial takes than its companion, whose requests are those `beside`; None for too few turns.

    Where the companion sat out some turns, its few requests each stand for all images of their kind.
    """
    turns = side_by_side_s(own, beside)
    if not sat_out(own, beside):
        return speedup_by_turns(turns)
    if len(turns) < FEWEST:
        return None
    kinds = Kinds(own, beside, workload)
    return speedup_by_few_turns(
        [(kinds.of[image], kinds.whole_s(image, a), kinds.as_many_s(image, b)) for image, a, b in turns], kinds.cycles
    )


class Kinds:
    """Which images take an uncached trial equally long: those of one size and number of steps.

    They stand for each other, so that a kind has as many of its requests as all images of the kind together.
    """

    def __init__(self, own: Iterable[Request], beside: Iterable[Request], workload: WorkloadConfig) -> None:
        """`own` are the requests of a trial that made every image, `beside` those of the uncached one."""
        sizes = {prompt.id: tuple(prompt.own.items()) for prompt in workload.prompts}
        skipped = {_image(r): len(r.cached_steps) for r in beside}  # a baseline may have a cache
        made: dict[Image, list[Request]] = {}
        for r in own:
            if SUSPENDED not in r.invalid_reasons:
                made.setdefault(_image(r), []).append(r)
        made = {image: of_image for image, of_image in made.items() if any(map(_counts, of_image))}
        self.of = {image: (sizes.get(image[0]), skipped.get(image, 0)) for image in made}
        """The kind of each image."""
        alike = {kind: [image for image in made if self.of[image] == kind] for kind in self.of.values()}
        self.cycles = math.inf if len(alike) == len(made) else min(map(len, made.values()))
        """How often each image was made at least; inf where none stands for another."""
        self._count = {image: len(alike[kind]) for image, kind in self.of.items()}
        self._share: dict[Image, float] = {}
        for images in alike.values():
            rows = [row for row in zip(*(made[image] for image in images), strict=False) if all(map(_counts, row))]
            cycles = [[r.latency_s for r in row] for row in rows]
            medians = [median([r.latency_s for r in made[image] if _counts(r)]) for image in images]
            self._share |= zip(images, whole_over_each(cycles or [medians]), strict=True)

    def whole_s(self, image: Image, own_s: float) -> float:
        """Seconds that the trial takes for all images of the kind, by what it took for this one."""
        return own_s * self._share[image]

    def as_many_s(self, image: Image, beside_s: float) -> float:
        """The same of the uncached one, which takes equally long for each."""
        return beside_s * self._count[image]


def _counts(r: Request) -> bool:
    return r.valid and r.latency_s > 0


def _image(r: Request) -> Image:
    return r.prompt_id, r.seed


def _by_place(requests: Iterable[Request]) -> dict[Place, Request]:
    """By turn, image, and how often the turn had that before."""
    found: dict[Place, Request] = {}
    before = Counter[tuple[int | None, Image]]()
    for r in requests:
        if SUSPENDED not in r.invalid_reasons:
            of = (r.turn, _image(r))
            found[*of, before[of]] = r
            before[of] += 1
    return found
