"""Searches of tune over known surfaces, run to their ends in this process."""

from collections.abc import Sequence
from dataclasses import replace

from factories import TURBO, trial
from surfaced import searched
from surfaces import GIB, Surface

from zbench.config import CacheConfig, ComputeConfig, OffloadConfig, SCMConfig, SearchConfig
from zbench.record import Record
from zbench.search.tune.search import TuneSearch
from zbench.space import Space, arrange
from zbench.trial import Trial

EAGER = ComputeConfig(device="cuda")
COMPILED = replace(EAGER, compile=True)
FORCED = tuple(
    SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_preset=preset, scm_policy="static")
    for preset in ("slow", "medium", "fast", "ultra")
)


def config(**options: object) -> SearchConfig:
    return SearchConfig(name="tune", target="zbench.search.tune.search:TuneSearch", options=dict(options))


def at(cache: CacheConfig | None = None, **groups: object) -> Trial:
    return trial(cache, **{"pipeline": TURBO, "compute": EAGER, **groups})


def space_of(
    computes: Sequence[ComputeConfig] = (EAGER,),
    caches: Sequence[CacheConfig] = (CacheConfig(),),
    offloads: Sequence[OffloadConfig] = (OffloadConfig(),),
) -> Space:
    """The choices of each group, with the first of the others."""
    arms = [at(compute=c) for c in computes] + [at(c) for c in caches] + [at(offload=o) for o in offloads]
    return arrange(arms)


def tuned(space: Space, on: Surface, **options: object) -> TuneSearch:
    """A search that came to its end on a surface, whose memory is predicted as it is."""
    return tuned_with_records(space, on, **options)[0]


def tuned_with_records(space: Space, on: Surface, **options: object) -> tuple[TuneSearch, list[Record]]:
    """And its records, in the order in which they came."""
    search = TuneSearch(space, config(**options), predict=lambda of: on.memory_bytes(of) / GIB, clock=lambda: 0.0)
    return search, [record for record, _ in searched(search, on)]


def tried(search: TuneSearch) -> list[str]:
    return [told.row.label for told in search.stories[0].decider.told.values()]
