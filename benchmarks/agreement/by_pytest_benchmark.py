"""The call under pytest-benchmark; how many rounds, the environment says."""

import os
from typing import Any

from call import bare_call


def test_generate(benchmark: Any) -> None:
    """Every round is one call."""
    rounds, warmup = int(os.environ["ROUNDS"]), int(os.environ["WARMUP"])
    benchmark.pedantic(bare_call(), rounds=rounds, iterations=1, warmup_rounds=warmup)
