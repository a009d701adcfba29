"""zbench's client of images endpoints beside SGLang's own bench_serving: the same server, as many requests each.

    python -m pip download --no-deps sglang==0.5.23 -d sgl
    python -m pip install --target sgl/site aiohttp
    python benchmarks/bench_serving_agreement.py sgl/sglang-0.5.23-*.whl --site sgl/site

The server is `zbench serve` over the tests' synthetic engine, which sleeps 0.5 s a call, so that what differs is the
clients' own. One engine makes one call at a time. With `--concurrency 4` four requests share a call, as the server
waits for the fourth: each still takes one call, and 200 requests 25 s where one after another they take 100 s.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from commands import SYNTHETIC, environment  # noqa: E402

from zbench.engines.images_client import ImagesClient  # noqa: E402

CALL_S = 0.5
WAITS_MS = 250
"""For the requests that share a call: clients send the next ones within some milliseconds of the answers."""

GOALS = {"mean": 0.01, "median": 0.01, "p99": 0.05}
SHOWN = ("mean", "median", "p90", "p95", "p99")
BODY = {"model": "default", "n": 1, "response_format": "b64_json"}
"""SGLang's client sends these with each prompt."""


def own_latencies(url: str, requests: int, concurrency: int) -> dict[str, float]:
    """zbench's client, its statistics named as SGLang's."""
    client = ImagesClient(url, key_env=None, timeout_s=60)
    bodies = [{**BODY, "prompt": f"Random prompt {k} for benchmarking diffusion models"} for k in range(requests)]
    client.generate(bodies[0])  # as SGLang's client does too
    with ThreadPoolExecutor(concurrency) as threads:
        latencies = [reply.latency_s for reply in threads.map(client.generate, bodies)]
    client.close()
    percentiles = {f"p{q}": float(np.percentile(latencies, q)) for q in (90, 95, 99)}
    return {"mean": float(np.mean(latencies)), "median": float(np.median(latencies)), **percentiles}


def sglang_latencies(url: str, requests: int, concurrency: int, wheel: Path, site: Path | None) -> dict[str, float]:
    """SGLang's client, as its own file of metrics says."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "metrics.json"
        told = {
            "--base-url": url,
            "--task": "text-to-image",
            "--dataset": "random",
            "--num-prompts": str(requests),
            "--max-concurrency": str(concurrency),
            "--output-file": str(out),
        }
        command = [sys.executable, str(Path(__file__).parent / "sglang_client.py"), str(wheel), "--disable-tqdm"]
        command += [word for pair in told.items() for word in pair]
        of_site = {} if site is None else {"SGLANG_CLIENT_SITE": str(site)}
        done = subprocess.run(command, env={**os.environ, **of_site}, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"SGLang's client failed:\n{done.stderr[-3000:]}")
        metrics = json.loads(out.read_text())
    if metrics["completed_requests"] != requests:
        raise SystemExit(f"SGLang's client was answered {metrics['completed_requests']} of {requests} requests")
    return {name: float(metrics[f"latency_{name}"]) for name in SHOWN}


def main() -> int:
    """Print the figures; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--site", type=Path, help="folder with aiohttp, where that is not installed")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=4)
    options = parser.parse_args()
    command = [sys.executable, "-m", "zbench", "serve", *SYNTHETIC, f"engine.options.round_s={CALL_S}", "--port", "0"]
    if options.concurrency > 1:
        command += ["--batching-max-size", str(options.concurrency), "--batching-delay-ms", str(WAITS_MS)]
    server = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        if not url:
            raise SystemExit(f"the server did not start; {shlex.join(command)} says why")
        load = (options.requests, options.concurrency)
        sglang, own = sglang_latencies(url, *load, options.wheel, options.site), own_latencies(url, *load)
    finally:
        server.terminate()
        server.wait()
    print(f"{options.requests} requests, {options.concurrency} at once, {CALL_S} s a call, {options.wheel.name}")
    missed = []
    for name in SHOWN:
        apart = own[name] / sglang[name] - 1
        goal = f"  (goal {GOALS[name]:.0%})" if name in GOALS else ""
        missed += [name] if abs(apart) > GOALS.get(name, np.inf) else []
        print(f"latency {name:6}  SGLang's client {sglang[name]:.4f} s  zbench's {own[name]:.4f} s  {apart:+.2%}{goal}")
    print("every goal holds" if not missed else f"missed: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
