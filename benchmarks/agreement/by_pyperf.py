"""The call under pyperf; its own options apply, and $LATENCIES is where zbench's view goes."""

import os
from pathlib import Path

import pyperf
from call import Call

if __name__ == "__main__":
    runner = pyperf.Runner()
    if runner.parse_args().worker:
        call = Call()
        runner.bench_func("generate", call)
        call.write(Path(os.environ["LATENCIES"]))
    else:  # the manager only starts workers, so it needs no pipeline
        runner.bench_func("generate", lambda: None)
