"""What `zbench tune` chooses from: what is typed of a group, else all that may win; the grid of neither."""

import pytest

from zbench.config import DBCacheConfig
from zbench.hydra_app import planned
from zbench.sweeper.plan import Plan

HERE = ("search=tune", "pipeline=zimage_tiny", "hardware=cpu", "compute=eager")


def plan(*more: str) -> Plan:
    made = planned([*HERE, *more], "tune")
    assert made is not None
    return made


def thresholds(made: Plan) -> set[float]:
    caches = [placed.trial.cache for placed in made.space.placed]
    return {c.residual_diff_threshold for c in caches if isinstance(c, DBCacheConfig) and c.method == "dbcache"}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("cache.residual_diff_threshold=0.1,0.2",), {0.1, 0.2}),
        (("cache=dbcache", "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.3"), {0.3}),
    ],
)
def test_what_is_typed_takes_the_place_of_ours(typed: tuple[str, ...], expected: set[float]) -> None:
    assert thresholds(plan(*typed)) == expected


def test_that_an_experiment_decides_nothing_here_is_said() -> None:
    (note,) = plan("experiment=demo", "cache=none").notes
    assert note.startswith("experiment=demo: tune has its own choices of offload, compute, parallel, cache")
