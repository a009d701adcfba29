"""The call under pytest-benchmark; the environment says how many rounds and where zbench's view goes."""

import os
from pathlib import Path
from typing import Any

from call import Call


def test_generate(benchmark: Any) -> None:
    """Every round is one call."""
    call = Call()
    benchmark.pedantic(call, rounds=int(os.environ["ROUNDS"]), iterations=1, warmup_rounds=int(os.environ["WARMUP"]))
    call.write(Path(os.environ["LATENCIES"]))
