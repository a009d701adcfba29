"""A server in this process over an engine without torch that paints when a test lets it."""

import json
import os
import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
from factories import trial

from zbench.engines import Engine, Generation, OnProgress, Residency, residency_by_keys
from zbench.measurement import Effective
from zbench.methods.cache import method_of
from zbench.probes.watched import Watched
from zbench.serving.orders import ALONE, CallSharing, Menu
from zbench.serving.server import ImageServer, bound
from zbench.trial import Trial

PATH = "/v1/images/generations"
WAIT_S = 60.0
"""After which a test that waits in vain fails."""


class GatedEngine:
    """Describes itself and is the engine too. A prompt that begins with `hold` is painted once `gate` lets it."""

    def __init__(self, *, sizes: bool = True, batching_problem: str | None = None) -> None:
        self._sizes, self._batching_problem = sizes, batching_problem
        self.begun: queue.Queue[str] = queue.Queue()  # prompts whose painting has begun; of a batch, joined by +
        self.batches: list[list[str]] = []  # prompts of each call for several
        self.gate = threading.Semaphore(0)
        self.loading = threading.Event()
        self.loading.set()
        self.painted: list[tuple[str, int, int, str]] = []  # prompt, seed, steps, cache
        self.configured = 0
        self.closed = False
        self.misdeed: Exception | None = None
        self.sick: Exception | None = None  # what every call fails of
        self.sick_of_batches: Exception | None = None

    def supports(self, trial: Trial) -> str | None:
        return None

    def residency(self, trial: Trial) -> Residency:
        return residency_by_keys(trial, ("cache", "workload", "pipeline.steps"))

    def resizes(self, trial: Trial) -> bool:
        return self._sizes

    def batching_problem(self, trial: Trial) -> str | None:
        return self._batching_problem

    def engine(self) -> Engine:
        return self

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        self.loading.wait(WAIT_S)
        if self.misdeed is not None:
            raise self.misdeed

    def configure(self, trial: Trial) -> None:
        self._trial = trial
        self.configured += 1

    def generate(self, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        self._begin([prompt_text])
        return self._made(prompt_text, seed)

    def generate_batch(self, calls: Sequence[tuple[str, int, str]]) -> list[Generation]:
        if self.sick_of_batches is not None:
            raise self.sick_of_batches
        prompts = [prompt for prompt, *_ in calls]
        self.batches.append(prompts)
        self._begin(prompts)
        return [self._made(prompt, seed) for prompt, seed, _ in calls]

    def _begin(self, prompts: list[str]) -> None:
        self.begun.put("+".join(prompts))
        if any(prompt.startswith("hold") for prompt in prompts):
            assert self.gate.acquire(timeout=WAIT_S)
        if self.sick is not None:
            raise self.sick
        if "raise" in prompts:
            raise RuntimeError("the pipeline broke\nover two lines")

    def _made(self, prompt_text: str, seed: int) -> Generation:
        pipeline = self._trial.pipeline
        self.painted.append((prompt_text, seed, pipeline.steps, method_of(self._trial.cache).label))
        image = np.random.default_rng(seed).integers(0, 256, (pipeline.height, pipeline.width, 3)).astype(np.uint8)
        if prompt_text == "black":
            image = np.zeros_like(image)
        return Generation(image, None, 0.5, {"denoise": 0.4}, [0.05] * pipeline.steps, [2])

    def effective(self) -> Effective:
        return Effective(device="cpu")

    def watch(self) -> Watched:
        return Watched((os.getpid(),))

    def close(self) -> None:
        self.closed = True


class ServerInThread:
    """A server that runs, and a client of it."""

    def __init__(self, engine: GatedEngine, server: ImageServer) -> None:
        self.engine, self.server = engine, server
        self.client = httpx.Client(base_url=server.url, timeout=WAIT_S)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:
            self.error = error

    def post(self, **fields: Any) -> httpx.Response:
        return self.client.post(PATH, json={"prompt": "a cat", **fields})

    def in_background(self, **fields: Any) -> "queue.Queue[httpx.Response | Exception]":
        """A request that is not waited for; where its answer will be."""
        answer: queue.Queue[httpx.Response | Exception] = queue.Queue()

        def ask() -> None:
            try:
                with httpx.Client(base_url=self.server.url, timeout=WAIT_S) as client:
                    answer.put(client.post(PATH, json={"prompt": "a cat", **fields}))
            except Exception as error:
                answer.put(error)

        threading.Thread(target=ask, daemon=True).start()
        return answer

    def began(self) -> str:
        """The next prompt whose painting begins."""
        return self.engine.begun.get(timeout=WAIT_S)

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def wait_for_metric(self, name: str, value: float) -> None:
        from commands import wait_for

        wait_for(lambda: self.metric(name) == value)

    def connect(self) -> socket.socket:
        """A bare connection."""
        at = httpx.URL(self.server.url)
        return socket.create_connection((at.host, at.port or 80), timeout=WAIT_S)


def bare_request(at: ServerInThread, **fields: Any) -> socket.socket:
    """Send a request over a bare connection, which the test may close."""
    body = json.dumps(fields).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection = at.connect()
    connection.sendall(head.encode() + body)
    return connection


@contextmanager
def running(
    engine: GatedEngine | None = None,
    *,
    queue_size: int = 4,
    ready: bool = True,
    batching: CallSharing = ALONE,
    **of: Any,
) -> Iterator[Any]:
    """A server of an 64×48 trial, ready unless a test wants to see it before; stopped at the end."""
    from commands import wait_for

    engine = engine or GatedEngine()
    base = trial()
    base = replace(base, pipeline=replace(base.pipeline, width=64, height=48, **of))
    menu = Menu(base, engine, batching=batching)
    server = ImageServer(menu, bound("127.0.0.1", 0), queue=queue_size)
    at = ServerInThread(engine, server)
    at.thread.start()
    try:
        if ready:
            wait_for(lambda: at.client.get("/health").status_code == 200)
            for _ in {1, batching.max_size}:
                at.began()  # its own requests
            engine.painted.clear()
            engine.batches.clear()
        yield at
    finally:
        at.engine.loading.set()
        for _ in range(100):
            at.engine.gate.release()
        at.server.stop()
        at.thread.join(WAIT_S)
        at.client.close()
        assert not at.thread.is_alive()
