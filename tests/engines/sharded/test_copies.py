"""Keys and values that travel by copy engines make one process's image; needs two GPUs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.mark.parametrize("ranks", [ranks for ranks in (2, 3, 4, 8) if ranks <= max(torch.cuda.device_count(), 2)])
def test_each_rank_has_what_one_has(ranks: int, tmp_path: Path) -> None:
    script = Path(__file__).parent / "copies_ranks.py"
    started = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(ranks), str(tmp_path)]) for rank in range(ranks)
    ]
    assert [process.wait(timeout=900) for process in started] == [0] * ranks
    for rank in range(ranks):
        differences = json.loads((tmp_path / f"differences.{rank}").read_text())
        assert set(differences) == {"eager", "graph"} and max(differences.values()) < 1e-3, differences
