"""Ranks that share an image make that of one process, and skip the same steps; in real processes over gloo.

One start of four processes runs all topologies, one mesh after another; a topology of fewer ranks leaves the last idle.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rank_start import run_ranks

pytestmark = pytest.mark.timeout(1200)  # many processes: on a busy machine they take their time

RANKS = 4
EVERY = ["plain", "dbcache", "taylorseer", "mask"]
TWO = ["plain", "dbcache"]
TOLERANCE = 1e-4


def case(topology: str, caches: list[str], name: str | None = None, **others: Any) -> dict[str, Any]:
    guided = topology.startswith("cfg")
    return {"name": name or topology, "topology": topology, "caches": caches, "guided": guided, **others}


LONG = "a long text of what is not wanted " * 4
CASES = [
    case("alone", EVERY),
    case("alone", TWO, "alone_guided", guided=True),
    case("alone", TWO, "alone_masked", guided=True, negative=LONG),
    case("alone", TWO, "alone_6_heads", heads=6),
    case("alone", TWO, "alone_8_heads", heads=8),
    case("tp2", EVERY),
    case("ulysses2", EVERY),
    case("ring2", EVERY),
    case("gather2", EVERY),
    case("gather3", EVERY),
    case("cfg2", TWO),
    case("ulysses2", TWO, "ulysses2_anything", parallel={"ulysses_anything": True}),
    case("ulysses2", TWO, "ulysses2_async", parallel={"ulysses_async": True}),
    *(case("tp2", ["plain"], f"tp2_offload_{mode}", offload=mode) for mode in ("text_encoder", "vae")),
    case("tp2", ["plain"], "tp2_text_encoder", parallel={"text_encoder": "tp"}),
    case("ulysses2_ring2", TWO),
    case("tp2_ulysses2", TWO),
    case("tp2_ring2", TWO),
    case("tp2_gather2", TWO),
    case("ulysses2_gather2", TWO),
    case("gather4", TWO),
    case("cfg2_tp2", TWO),
    case("cfg2_ring2", TWO),
    case("ulysses2", TWO, "ulysses2_masked", guided=True, negative=LONG),
    case("gather3", TWO, "gather3_masked", guided=True, negative=LONG),
    case("cfg2", TWO, "cfg2_masked", negative=LONG),
    case("cfg2_gather2", TWO, "cfg2_gather2_masked", negative=LONG),
    case("cfg2_ulysses2", TWO, "cfg2_ulysses2_masked", negative=LONG),
    case("tp2_ulysses2", TWO, "tp2_ulysses2_6_heads", heads=6),
    case("ulysses3", TWO, "ulysses3_8_heads", heads=8, parallel={"ulysses_anything": True}),
    *(case(mode, ["plain"], f"{mode}_all", offload="all") for mode in ("ulysses2", "ring2", "gather2")),
    *(
        case(mode, TWO, f"{mode}_compiled", compute={"compile": True})
        for mode in ("tp2", "ulysses2", "ring2", "gather3", "cfg2")
    ),
    *(
        case(mode, ["plain"], f"{mode}_again", again=True, parallel={"vae": vae})
        for mode, vae in (
            ("ulysses2", "whole"),
            ("ring2", "tiled"),
            ("gather2", "split"),
            ("cfg2", "whole"),
            ("cfg2_gather2", "whole"),
        )
    ),
]
REFUSED = {
    "ulysses2_ring2_async": (case("ulysses2_ring2", [], parallel={"ulysses_async": True}), "parallel.ulysses_async"),
    "ulysses2_ring2_anything": (
        case("ulysses2_ring2", [], parallel={"ulysses_anything": True}),
        "parallel.ulysses_anything",
    ),
    "ulysses2_gather2_async": (
        case("ulysses2_gather2", [], parallel={"ulysses_async": True}),
        "parallel.ulysses_async",
    ),
    "ring2_allgather": (
        case("ring2", [], parallel={"ring_rotate_method": "allgather"}),
        "parallel.ring_rotate_method=allgather",
    ),
    "ring2_cudnn": (
        case("ring2", [], compute={"attention_backend": "_native_cudnn"}),
        "compute.attention_backend=_native_cudnn: it does not return the log-sum-exp",
    ),
    "ulysses2_math": (
        case("ulysses2", [], compute={"attention_backend": "_native_math"}),
        "compute.attention_backend=_native_math: Ulysses and ring have cache-dit's kernels: _native_cudnn",
    ),
    "tp3": (case("tp3", []), "parallel.tp_size=3: 4 heads"),
    "ulysses3": (case("ulysses3", []), "parallel.ulysses_size=3: of 4 heads padded to 6"),
    "tp2_all": (case("tp2", [], offload="all"), "offload.mode=all"),
    "tp4_text_encoder": (case("tp4", [], parallel={"text_encoder": "tp"}), "parallel.text_encoder=tp: num_key_value"),
    "cfg2_unguided": ({**case("cfg2", []), "guided": False}, "parallel.cfg_size=2: without guidance"),
    "ring2_masked": (case("ring2", ["plain"], guided=True, negative=LONG), "ring attention takes no mask"),
}
CASES += [{**refused, "name": name} for name, (refused, _said) in REFUSED.items()]
CASES.sort(key=lambda one: (bool(one.get("again")), str(one["topology"])))  # so that ranks meet once a topology
for one in CASES:
    one["meeting"] = one["name"] if one.get("again") else one["topology"]
RANKS_OF = {"tp2": 2, "ulysses2": 2, "ring2": 2, "gather2": 2, "cfg2": 2, "gather3": 3, "ulysses3": 3}


class Made(NamedTuple):
    """What one rank made."""

    latents: np.ndarray
    cached: list[int]
    diffs: dict[str, float]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks left what they made; they have ended."""
    place = tmp_path_factory.mktemp("ranks")
    (place / "cases.json").write_text(json.dumps(CASES))
    run_ranks("ranks_main", place, RANKS)
    return place


def read(folder: Path, name: str, cache: str, rank: int) -> Made:
    failure = folder / f"{name}-error.{rank}.json"
    assert not failure.exists(), json.loads(failure.read_text())["trace"]
    said = json.loads((folder / f"{name}-{cache}.{rank}.json").read_text())
    return Made(np.load(folder / f"{name}-{cache}.{rank}.npy"), said["cached"], said["diffs"])


def reference_of(name: str, guided: bool) -> str:
    for kind in ("masked", "6_heads", "8_heads"):
        if name.endswith(kind):
            return f"alone_{kind}"
    return "alone_guided" if guided else "alone"


SHARED = [one for one in CASES if one["topology"] != "alone" and one["name"] not in REFUSED]


@pytest.mark.parametrize("one", SHARED, ids=lambda one: str(one["name"]))
def test_every_rank_has_the_image_of_one_process_and_skips_its_steps(one: dict[str, Any], folder: Path) -> None:
    ranks = RANKS_OF.get(one["topology"], RANKS)
    assert len(list(folder.glob(f"{one['name']}-plain.*.npy"))) == ranks
    for cache in one["caches"]:
        alone = read(folder, reference_of(one["name"], one["guided"]), cache, 0)
        made = [read(folder, one["name"], cache, rank) for rank in range(ranks)]
        for rank in made:
            np.testing.assert_allclose(rank.latents, alone.latents, rtol=0, atol=TOLERANCE)
            assert rank.cached == alone.cached
            assert rank.diffs == made[0].diffs  # to the last bit, or ranks could decide otherwise
            assert rank.diffs == pytest.approx(alone.diffs, abs=TOLERANCE)


@pytest.mark.parametrize("name", [one["name"] for one in CASES if one.get("again")])
def test_after_close_a_pipeline_is_as_before(name: str, folder: Path) -> None:
    """Also alone, for the ranks have parted."""
    alone = read(folder, "alone_guided" if name.startswith("cfg") else "alone", "plain", 0)
    for rank in range(2):
        np.testing.assert_array_equal(read(folder, name, "closed", rank).latents, alone.latents)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_by_every_rank(name: str, folder: Path) -> None:
    topology, said = REFUSED[name][0]["topology"], REFUSED[name][1]
    errors = [json.loads(path.read_text())["error"] for path in folder.glob(f"{name}-error.*.json")]
    assert len(errors) == RANKS_OF.get(topology, RANKS if topology != "tp3" else 3)
    assert all(said in error for error in errors)


def test_the_caches_compare_and_skip_some_of_the_steps(folder: Path) -> None:
    """Or the equality above would say nothing."""
    assert read(folder, "alone", "plain", 0).cached == []
    by_threshold = read(folder, "alone", "dbcache", 0)
    assert 0 < len(by_threshold.cached) < len(by_threshold.diffs)
    assert read(folder, "alone_guided", "dbcache", 0).cached
    assert read(folder, "alone", "taylorseer", 0).cached and read(folder, "alone", "mask", 0).cached
