"""Requests lost and memory kept by `zbench serve` under load: 1,000 small requests, 50 at a time, on loopback.

`python benchmarks/serve_load.py [REQUESTS] [CLIENTS]`. The engine is the tests' synthetic one, which sleeps and paints
noise, so that what is seen is the server's own. Memory is the server's, after 100 requests and after all.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from commands import SYNTHETIC, environment  # noqa: E402

PATH = "/v1/images/generations"
FIRST = 100
"""Requests before memory is read for the first time: what is made once is made by then."""


async def _send(url: str, seeds: range, clients: int) -> list[str | None]:
    """What was wrong with each answer, or None."""
    turns = asyncio.Semaphore(clients)
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def one(seed: int) -> str | None:
            async with turns:
                try:
                    answer = await client.post(PATH, json={"prompt": "a cat", "seed": seed})
                except httpx.HTTPError as error:
                    return type(error).__name__
                if answer.status_code != 200:
                    return f"HTTP {answer.status_code}"
                return None if answer.json()["zbench"]["seed"] == seed else "another's image"

        return list(await asyncio.gather(*map(one, seeds)))


def main(requests: int = 1000, clients: int = 50) -> None:
    """Print the figures."""
    command = [sys.executable, "-m", "zbench", "serve", *SYNTHETIC, "engine.options.round_s=0.001", "--port", "0"]
    server = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        memory = psutil.Process(server.pid).memory_info
        faults = asyncio.run(_send(url, range(FIRST), clients))
        before, began = memory().rss, time.perf_counter()
        faults += asyncio.run(_send(url, range(FIRST, FIRST + requests), clients))
        took_s, after = time.perf_counter() - began, memory().rss
    finally:
        server.terminate()
        server.communicate()
    lost = [fault for fault in faults if fault is not None]
    print(f"sent {len(faults)}, {FIRST} of them to warm up, {clients} at a time")
    print(f"answered {len(faults) - len(lost)}, lost {len(lost)} {sorted(set(lost)) or ''}".rstrip())
    print(f"rate {requests / took_s:.0f} requests/s")
    print(f"server's memory {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB after")
    print(f"exit code {server.returncode}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
