"""Ranks that share an image make that of one process, and skip the same steps; in real processes over gloo.

One start of four processes runs all topologies, one mesh after another; a topology of fewer ranks leaves the last idle.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
RANKS = 4
EVERY = ["plain", "dbcache", "taylorseer", "mask"]
TWO = ["plain", "dbcache"]
TOLERANCE = 1e-4


def case(topology: str, caches: list[str], name: str | None = None, **others: Any) -> dict[str, Any]:
    guided = topology.startswith("cfg")
    return {"name": name or topology, "topology": topology, "caches": caches, "guided": guided, **others}


CASES = [
    case("alone", EVERY),
    case("alone", TWO, "alone_guided", guided=True),
    case("alone", TWO, "alone_masked", guided=True, negative="a long text of what is not wanted " * 4),
    case("tp2", EVERY),
    case("ulysses2", EVERY),
    case("ring2", EVERY),
    case("gather2", EVERY),
    case("gather3", EVERY),
    case("cfg2", TWO),
    case("ulysses2", TWO, "ulysses2_anything", parallel={"ulysses_anything": True}),
    case("ulysses2", TWO, "ulysses2_async", parallel={"ulysses_async": True}),
    case("tp2", ["plain"], "tp2_text_encoder", parallel={"text_encoder": "tp"}),
    case("ulysses2_ring2", TWO),
    case("tp2_ulysses2", TWO),
    case("tp2_ring2", TWO),
    case("tp2_gather2", TWO),
    case("ulysses2_gather2", TWO),
    case("gather4", TWO),
    case("cfg2_tp2", TWO),
    case("cfg2_ring2", TWO),
    case("ulysses2", TWO, "ulysses2_masked", guided=True, negative="a long text of what is not wanted " * 4),
    case("gather3", TWO, "gather3_masked", guided=True, negative="a long text of what is not wanted " * 4),
]
RANKS_OF = {"tp2": 2, "ulysses2": 2, "ring2": 2, "gather2": 2, "cfg2": 2, "gather3": 3, "alone": 1}


class Made(NamedTuple):
    """What one rank made."""

    latents: np.ndarray
    cached: list[int]
    diffs: dict[str, float]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the ranks left what they made; they have ended."""
    place = tmp_path_factory.mktemp("ranks")
    (place / "cases.json").write_text(json.dumps(CASES))
    paths = [str(TESTS.parent), str(TESTS), str(HERE), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    ranks = []
    for rank in range(RANKS):
        with (place / f"{rank}.log").open("w") as log:
            command = [sys.executable, str(HERE / "ranks_main.py"), str(rank), str(place)]
            ranks.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
    until = time.monotonic() + 600
    try:
        while any(rank.poll() is None for rank in ranks) and time.monotonic() < until:
            if any(rank.poll() not in (None, 0) for rank in ranks):
                break  # the others would wait for it
            time.sleep(0.2)
        logs = "\n".join((place / f"{rank}.log").read_text()[-2000:] for rank in range(RANKS))
        assert [rank.poll() for rank in ranks] == [0] * RANKS, logs
        yield place
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def read(folder: Path, name: str, cache: str, rank: int) -> Made:
    failure = folder / f"{name}-error.{rank}.json"
    assert not failure.exists(), json.loads(failure.read_text())["trace"]
    said = json.loads((folder / f"{name}-{cache}.{rank}.json").read_text())
    return Made(np.load(folder / f"{name}-{cache}.{rank}.npy"), said["cached"], said["diffs"])


def reference_of(name: str, guided: bool) -> str:
    if name.endswith("_masked"):
        return "alone_masked"
    return "alone_guided" if guided else "alone"


@pytest.mark.parametrize("one", [one for one in CASES if one["topology"] != "alone"], ids=lambda one: one["name"])
def test_every_rank_has_the_image_of_one_process_and_skips_its_steps(one: dict[str, Any], folder: Path) -> None:
    ranks = RANKS_OF.get(one["topology"], RANKS)
    assert len(list(folder.glob(f"{one['name']}-plain.*.npy"))) in (0, ranks)
    for cache in one["caches"]:
        alone = read(folder, reference_of(one["name"], one["guided"]), cache, 0)
        made = [read(folder, one["name"], cache, rank) for rank in range(ranks)]
        for rank in made:
            np.testing.assert_allclose(rank.latents, alone.latents, rtol=0, atol=TOLERANCE)
            assert rank.cached == alone.cached
            assert rank.diffs == made[0].diffs  # to the last bit, or ranks could decide otherwise
            assert rank.diffs == pytest.approx(alone.diffs, abs=TOLERANCE)


def test_the_caches_compare_and_skip_some_of_the_steps(folder: Path) -> None:
    """Or the equality above would say nothing."""
    assert read(folder, "alone", "plain", 0).cached == []
    by_threshold = read(folder, "alone", "dbcache", 0)
    assert 0 < len(by_threshold.cached) < len(by_threshold.diffs)
    assert read(folder, "alone_guided", "dbcache", 0).cached
    assert read(folder, "alone", "taylorseer", 0).cached and read(folder, "alone", "mask", 0).cached
