"""What befell overlapping requests is found as a look at every stretch would find it, and without one."""

import random
from collections.abc import Iterator

from zbench.worker.befallen import Befallen

Stretch = tuple[float, float, list[str]]


def by_looking(stretches: list[Stretch], began_s: float, ended_s: float) -> list[str]:
    meanwhile = [causes for begin, end, causes in stretches if end > began_s and begin < ended_s]
    return list(dict.fromkeys(cause for causes in meanwhile for cause in causes))


def test_it_is_what_a_look_at_every_stretch_finds() -> None:
    draw = random.Random(3)
    for _ in range(200):
        ends = sorted(draw.uniform(0, 10) for _ in range(draw.randrange(12)))
        stretches = [
            (begin, end, draw.sample(["other_load", "stolen_time", "suspended"], draw.randrange(3)))
            for begin, end in zip([0.0, *ends], ends, strict=False)
        ]
        befallen = Befallen(stretches)
        for _ in range(10):
            began_s, ended_s = sorted((draw.uniform(-1, 11), draw.uniform(-1, 11)))
            assert sorted(befallen.between(began_s, ended_s)) == sorted(by_looking(stretches, began_s, ended_s))


def test_the_earliest_cause_is_the_first() -> None:
    assert Befallen([(0, 1, ["b"]), (1, 2, ["a"]), (2, 3, ["b"])]).between(0.5, 2.5) == ["b", "a"]


def test_stretches_are_looked_at_once_however_many_requests_ask() -> None:
    """A load of n requests of which each overlaps all others has n stretches in each."""
    read = 0

    def counted() -> Iterator[Stretch]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield (float(number), number + 1.0, ["other_load"])

    befallen = Befallen(counted())
    assert all(befallen.between(0.0, 1000.0) == ["other_load"] for _ in range(1000)) and read == 1000
