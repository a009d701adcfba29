"""What a cluster's executor costs: many trials over many Ray workers, and how much is lost with each further worker.

    python benchmarks/cluster_scale.py sweep [--trials 10000] [--workers 16]
    python benchmarks/cluster_scale.py efficiency [--workers 1 2 4 8] [--seconds 6] [--tasks 4]

Ray's nodes are on this machine, with GPUs that only Ray believes in, and the engine is `tests/engines/synthetic.py`.
`sweep` is the whole command: from an empty run folder to the report. It prints how many trials have a record, how many
have two, wall time a trial, and the parent's memory after a tenth of the trials, at the last one and at most.
`efficiency` measures with N workers N times as many tasks of an engine that sleeps for so many seconds each: its time
over that of one worker.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

HOME = Path(__file__).resolve().parents[1]
TESTS = HOME / "tests"
sys.path[:0] = [str(HOME), str(TESTS), str(TESTS / "engines")]

from factories import trial  # noqa: E402
from ray_nodes import RayNodes  # noqa: E402

from zbench.config import (  # noqa: E402
    ComputeConfig,
    DBCacheConfig,
    EngineConfig,
    MeasureConfig,
    RayExecutorConfig,
)
from zbench.executors import Completed, Setting, Task  # noqa: E402
from zbench.executors.remote.ray import RayExecutor  # noqa: E402

EFFICIENCY_GOAL = 0.9
MIB = 2**20


def main() -> None:
    """Print the figures of one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    sweep = kinds.add_parser("sweep")
    sweep.add_argument("--trials", type=int, default=10_000)
    sweep.add_argument("--workers", type=int, default=16)
    efficiency = kinds.add_parser("efficiency")
    efficiency.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    efficiency.add_argument("--seconds", type=float, default=6.0, help="that a task sleeps")
    efficiency.add_argument("--tasks", type=int, default=4, help="a worker")
    options = parser.parse_args()
    most = options.workers if options.kind == "sweep" else max(options.workers)
    nodes = RayNodes(nodes=2, gpus=-(-most // 2), cpus=most)
    try:
        if options.kind == "sweep":
            _sweep(nodes, options.trials, options.workers)
        else:
            _efficiency(nodes, options.workers, options.seconds, options.tasks)
    finally:
        nodes.close()


def _sweep(nodes: RayNodes, trials: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "zbench", "sweep", "--config-dir", str(TESTS / "conf"), "--allow-code"]
        command += ["engine=synthetic", "engine.options.round_s=0", "hardware=fake", "pipeline=zimage_tiny"]
        command += ["workload=single", "measure.min_rounds=1", "measure.max_rounds=1", "measure.max_warmup_rounds=0"]
        command += ["measure.paired=false", "executor=ray", f"executor.address={nodes.address}"]
        command += ["executor.share_device=true", f"executor.concurrent_trials={workers}", "sweep.name=s"]
        command += ["cache=dbcache", "cache.max_warmup_steps=4"]
        command += [f"cache.residual_diff_threshold=range(0.001,{(trials - 0.5) * 0.001:.4f},0.001)"]
        variables = {**os.environ, **nodes.variables}
        with open(os.devnull, "w") as nowhere:
            process = subprocess.Popen(command, cwd=folder, env=variables, stdout=nowhere, stderr=nowhere)
        journal = Path(folder) / "runs" / "s" / "records.jsonl"
        seen = _watched(process, journal)
        if process.returncode != 0:
            raise SystemExit(f"zbench sweep ended with exit code {process.returncode}")
        lines = [json.loads(line) for line in journal.open(encoding="utf-8")]
        states, ids = Counter(line["state"] for line in lines), Counter(line["trial_id"] for line in lines)
        (began_s, first, _, idle_s), last = seen[0], seen[-1][1]
        ended_s, _, at_last, busy_s = next(each for each in seen if each[1] == last)  # then it writes the report
        print(f"{len(ids)} trials have a record, {sum(n > 1 for n in ids.values())} have two; {dict(states)}")
        print(f"{len({line['environment']['placed_by']['node_id'] for line in lines})} nodes, {workers} workers")
        each_ms = (ended_s - began_s) / max(last - first, 1) * 1000
        parents_ms = (busy_s - idle_s) / max(last - first, 1) * 1000
        print(f"{each_ms:.1f} ms of wall time a trial, {parents_ms:.1f} ms of the parent's CPU")
        settled = next(rss for _, count, rss, _ in seen if count >= trials / 10)
        most = max(rss for _, _, rss, _ in seen)
        print(
            f"parent: {settled / MIB:.0f} MiB after a tenth of the trials, {at_last / MIB:.0f} MiB at the last one; "
            f"{most / MIB:.0f} MiB at most, with the report"
        )


def _watched(process: "subprocess.Popen[bytes]", journal: Path) -> list[tuple[float, int, int, float]]:
    """Time, lines of the journal, the parent's memory and its seconds of CPU, twice a second, from the first line on.

    The first trial is the reference, for which the others wait.
    """
    seen: list[tuple[float, int, int, float]] = []
    count, offset = 0, 0
    while process.poll() is None:
        time.sleep(0.5)
        if journal.is_file():
            with journal.open("rb") as file:
                file.seek(offset)
                new = file.read()
            count, offset = count + new.count(b"\n"), offset + len(new)
        try:
            parent = psutil.Process(process.pid)
            memory, busy_s = parent.memory_info().rss, parent.cpu_times().user + parent.cpu_times().system
        except psutil.Error:
            break
        if count and memory:
            seen.append((time.monotonic(), count, memory, busy_s))
            if len(seen) % 120 == 0:
                print(f"  {count} records, parent {memory / MIB:.0f} MiB", flush=True)
    process.wait()
    return seen


def _efficiency(nodes: RayNodes, workers: list[int], seconds: float, tasks: int) -> None:
    alone_s = None
    for count in workers:
        wall_s = _wall_s(nodes, count, seconds, tasks)
        alone_s = alone_s or wall_s
        share = alone_s / wall_s
        print(
            f"{count} workers: {count * tasks} tasks of {seconds:g} s in {wall_s:.1f} s, efficiency {share:.2f}",
            flush=True,
        )
    print(f"goal at least {EFFICIENCY_GOAL}")


def _wall_s(nodes: RayNodes, count: int, seconds: float, tasks: int) -> float:
    """Of `tasks` tasks a worker, after one that each worker started with."""
    config = RayExecutorConfig(name="ray", target="", address=nodes.address, concurrent_trials=count, share_device=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RayExecutor(config, folder / "s" / "logs", allow_code=True) as executor:
            _run(executor, [_task(folder, 0.5 + n / 1000, 0.1) for n in range(count)], count)
            began_s = time.monotonic()
            _run(executor, [_task(folder, 0.1 + n / 1000, seconds) for n in range(count * tasks)], count)
            return time.monotonic() - began_s


def _run(executor: RayExecutor, tasks: list[Task], at_once: int) -> None:
    held = 0
    while tasks or held:
        while tasks and held < at_once:
            executor.submit(tasks.pop())
            held += 1
        done = executor.next_done(lambda *_: None, lambda: False)
        held -= 1
        if not all(isinstance(result, Completed) for result in done.results):
            raise SystemExit(f"not measured: {done.results}")


def _task(folder: Path, threshold: float, seconds: float) -> Task:
    """Four requests that sleep for `seconds` together; the first of them is the cold one."""
    engine = EngineConfig(
        name="synthetic", target="synthetic:SyntheticEngine", loads_weights=False, options={"round_s": seconds / 4}
    )
    cache = DBCacheConfig(residual_diff_threshold=threshold)
    of = trial(cache, engine=engine, compute=ComputeConfig(device="cuda"))
    measure = MeasureConfig(min_rounds=4, max_rounds=4, max_warmup_rounds=0)
    return Task((Setting(of, folder / "artifacts" / of.trial_id),), measure, engine.name)


if __name__ == "__main__":
    main()
