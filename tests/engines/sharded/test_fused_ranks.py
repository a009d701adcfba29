"""Ranks whose layers were fused after they were sharded make the image of one process with plain layers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rank_start import run_ranks

pytestmark = pytest.mark.timeout(900)  # two processes: on a busy machine they take their time

ALL = "qkv rope ffn"
TWO = ["plain", "dbcache"]
EVERY = [*TWO, "taylorseer", "mask"]
LONG = "a long text of what is not wanted " * 4
TOLERANCE = 1e-4


def case(topology: str, name: str, fused: str = ALL, caches: list[str] = TWO, **others: Any) -> dict[str, Any]:
    return {"name": name, "topology": topology, "meeting": topology, "fused": fused, "caches": caches, **others}


ALONE = [
    case("alone", "alone", "", EVERY),
    case("alone", "alone_guided", "", guided=True, negative=LONG),
]
FUSED = [
    case("alone", "alone_fused", caches=[*EVERY, "plain"]),
    case("alone", "alone_fused_guided", guided=True, negative=LONG),
    case("cfg2", "cfg2_guided", guided=True, negative=LONG),
    case("gather2", "gather2", "rope ffn"),
    case("ring2", "ring2"),
    case("tp2", "tp2"),
    case("tp2", "tp2_compiled", caches=["plain"], compute={"compile": True}),
    case("ulysses2", "ulysses2"),
    case("ulysses2", "ulysses2_guided", guided=True, negative=LONG),
    case("ulysses2", "ulysses2_compiled", caches=["plain"], compute={"compile": True}),
    case("ulysses2", "ulysses2_all_offloaded", caches=["plain"], offload="all"),
    case("ulysses2", "ulysses2_anything", parallel={"ulysses_anything": True}),
]
AGAIN = [{**case("ulysses2", "ulysses2_again", caches=["plain"]), "again": True, "meeting": "again"}]
REFUSED = {
    "gather2_qkv": (case("gather2", "gather2_qkv", "qkv", []), "gather sends the values while the keys"),
    "ulysses2_async": (
        case("ulysses2", "ulysses2_async", "rope", [], parallel={"ulysses_async": True}),
        "ulysses_async sends the queries while the keys",
    ),
}
CASES = sorted([*ALONE, *FUSED, *(one for one, _ in REFUSED.values())], key=lambda one: str(one["topology"])) + AGAIN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks left what they made; they have ended."""
    place = tmp_path_factory.mktemp("fused")
    (place / "cases.json").write_text(json.dumps(CASES))
    run_ranks("ranks_main", place, 2)
    return place


def latents(folder: Path, name: str, cache: str, rank: int) -> tuple[np.ndarray, list[int]]:
    failure = folder / f"{name}-error.{rank}.json"
    assert not failure.exists(), json.loads(failure.read_text())["trace"]
    said = json.loads((folder / f"{name}-{cache}.{rank}.json").read_text())
    return np.load(folder / f"{name}-{cache}.{rank}.npy"), said["cached"]


@pytest.mark.parametrize("one", FUSED + AGAIN, ids=lambda one: str(one["name"]))
def test_each_rank_has_the_image_of_plain_layers_and_skips_their_steps(one: dict[str, Any], folder: Path) -> None:
    for cache in one["caches"]:
        plain, skipped = latents(folder, "alone_guided" if one.get("guided") else "alone", cache, 0)
        for rank in range(1 if one["topology"] == "alone" else 2):
            made, cached = latents(folder, one["name"], cache, rank)
            np.testing.assert_allclose(made, plain, rtol=0, atol=TOLERANCE)
            assert cached == skipped


def test_the_caches_skip_some_of_the_steps(folder: Path) -> None:
    """Or their part of the equality above would say nothing."""
    assert [bool(latents(folder, "alone", cache, 0)[1]) for cache in EVERY] == [False, True, True, True]


def test_undone_and_unshared_a_pipeline_is_as_before(folder: Path) -> None:
    for rank in range(2):
        made = latents(folder, "ulysses2_again", "closed", rank)[0]
        np.testing.assert_array_equal(made, latents(folder, "alone", "plain", 0)[0])


@pytest.mark.parametrize("name", REFUSED)
def test_what_sends_each_projection_by_itself_is_refused_by_every_rank(name: str, folder: Path) -> None:
    errors = [json.loads(path.read_text())["error"] for path in folder.glob(f"{name}-error.*.json")]
    assert len(errors) == 2 and all(REFUSED[name][1] in error for error in errors)
