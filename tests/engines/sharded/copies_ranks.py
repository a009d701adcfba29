"""One rank of `test_copies.py`: `copies_ranks.py RANK RANKS FOLDER`. Gathers by collectives and by copies."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel

from zbench.engines.reference.graphed import GraphedForward
from zbench.engines.reference.ranks import RankWorld
from zbench.engines.reference.sharded.copies import PeerCopies
from zbench.engines.reference.sharded.gather import ShardedSequence
from zbench.engines.reference.sharded.mesh import join
from zbench.methods.parallel import ParallelDims

SIZES = {"dim": 256, "n_layers": 5, "n_heads": 4, "n_kv_heads": 4, "cap_feat_dim": 64, "axes_dims": [16, 24, 24]}
REPEATS = 50


def main(rank: int, ranks: int, folder: Path) -> None:
    """Writes the largest differences, by what made them."""
    device = torch.device("cuda", rank)
    mesh = join(RankWorld(rank, ParallelDims(gather=ranks), folder), str(device))
    torch.manual_seed(0)
    with device:
        net: Any = ZImageTransformer2DModel(**SIZES).eval().requires_grad_(False)
    drawn = torch.Generator("cpu").manual_seed(1)
    t = torch.tensor([0.5], device=device)
    differences: dict[str, float] = {}
    with torch.no_grad():
        calls = [
            (torch.randn(16, 1, side, side, generator=drawn).to(device), torch.randn(n, 64, generator=drawn).to(device))
            for side, n in ((32, 20), (22, 60), (32, 20), (12, 5))
        ]
        alone = [net([x], t, [text], return_dict=False)[0][0] for x, text in calls]
        sequence = ShardedSequence(net, mesh.gather, None)
        sequence.carry(PeerCopies(mesh.gather, 1024 * 256, torch.float32))
        graphed = None
        for way in ("eager", "graph"):
            if way == "graph":
                graphed = GraphedForward(net, torch.cuda.graph_pool_handle())
            worst = 0.0
            for number in range(REPEATS):  # a race would not show each time
                (x, text), one = calls[number % len(calls)], alone[number % len(calls)]
                worst = max(worst, float((net([x], t, [text], return_dict=False)[0][0] - one).abs().max()))
            differences[way] = worst
        if graphed is not None:
            graphed.close()
        sequence.close()
    (folder / f"differences.{rank}").write_text(json.dumps(differences))
    mesh.leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
