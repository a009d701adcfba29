"""The comparison of searches: equal cost, and what is found is judged without noise."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
COST = 12.0


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("searches")


def test_no_search_spends_more_than_the_others_and_none_finds_better_than_the_best(searches: ModuleType) -> None:
    space = searches.grid()
    whole = [p.trial for p in space.placed]
    for surface in searches.SURFACES.values():
        known = searches.Known(surface, 0)
        best_s = min(known.latency_s(of) for of in whole if known.ssim(of) >= searches.MIN_SSIM)
        for name, make in searches.SEARCHES.items():
            path = list(searches.found(make(space, 0, COST), known, COST))
            assert COST - 1.5 <= path[-1][0] <= COST, name
            assert path[-1][1] >= best_s
            assert [s for _, s in path] != [path[0][1]] * len(path), f"{name} found nothing"
