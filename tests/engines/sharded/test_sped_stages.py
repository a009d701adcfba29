"""Short texts and another decode on two ranks that share them: what they make is what one process makes."""

import json
from typing import Any

import pytest
from rank_start import run_ranks

pytestmark = pytest.mark.timeout(900)  # two processes: on a busy machine they take their time

RANKS = 2
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks("sped_stage_ranks", folder, RANKS)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("what", ["decode", "text"])
def test_what_is_split_and_sped_is_what_one_process_makes(told: list[dict[str, Any]], what: str) -> None:
    for rank in told:
        assert len(rank[what]) == {"decode": 6, "text": 2}[what]
        assert max(rank[what].values()) <= TOLERANCE


def test_a_split_decode_is_one_graph_for_each_shape(told: list[dict[str, Any]]) -> None:
    """Its collectives are in it."""
    assert [(rank["graphs"], rank["breaks"]) for rank in told] == [(3, 0)] * RANKS
