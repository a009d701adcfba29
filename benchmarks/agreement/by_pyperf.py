"""The call under pyperf; its own options apply."""

import pyperf
from call import bare_call

if __name__ == "__main__":
    runner = pyperf.Runner()
    if runner.parse_args().worker:
        runner.bench_func("generate", bare_call())
    else:  # the manager only starts workers, so it needs no pipeline
        runner.bench_func("generate", lambda: None)
