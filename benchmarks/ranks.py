"""One process a rank, for the commands here that measure several devices; where one fails the others are ended."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from typing import Any

POLL_S = 0.2


def run_ranks(of_a_rank: Callable[..., None], ranks: int, *arguments: Any) -> int:
    """Call `of_a_rank(rank, *arguments, folder)` in `ranks` processes that share an empty folder; their exit code.

    Without the one that failed the others would wait for minutes.
    """
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        started = [spawn.Process(target=of_a_rank, args=(rank, *arguments, folder)) for rank in range(ranks)]
        for process in started:
            process.start()
        while any(process.exitcode is None for process in started) and not any(p.exitcode for p in started):
            time.sleep(POLL_S)
        failed = next((abs(process.exitcode) for process in started if process.exitcode), 0)
        for process in started:
            process.kill()
            process.join()
        return failed
