"""A program that takes SGLang's words and answers as its server does, without SGLang, torch or a GPU.

`python fake_sglang.py version`, `python fake_sglang.py serve --model-path …`. Its flags and fields are those of the
version FAKE_VERSION in zbench's table. What it does besides is in its environment:

FAKE_LAUNCHES   a file that gets a line of JSON for each launch: arguments and SGLANG_* variables
FAKE_MISDEEDS   JSON, a threshold (SGLANG_CACHE_DIT_RDT or that of a request) to what happens in its third request
FAKE_START      never_ready, dies: what happens to every launch
FAKE_SETTLES    JSON, arguments that become others than they were given
FAKE_ZBENCH     1: images come from a `zbench serve` of the tiny pipeline behind it
"""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STEP_S, SHARE = 0.004, 0.05
SET = {"SGLANG_CACHE_DIT_RDT": "residual_diff_threshold", "SGLANG_CACHE_DIT_WARMUP": "max_warmup_steps"}


class Server:
    """What one launch was told."""

    def __init__(self, version: str, flags: dict[str, str]) -> None:
        self.version, self.flags = version, flags
        self.served = 0
        self.behind: str | None = None
        self.busy = threading.Lock()
        if os.environ.get("FAKE_ZBENCH"):
            self.behind = zbench_serve()

    def cache(self, body: dict[str, Any]) -> tuple[float, int] | None:
        """Threshold and steps of warm-up in effect; None: no step is skipped."""
        on = os.environ.get("SGLANG_CACHE_DIT_ENABLED") == "true"
        said = {key: float(os.environ[name]) for name, key in SET.items() if name in os.environ}
        if self.version == "0.5.23" and not os.environ.get("FAKE_IGNORES"):  # older ones ignore requests
            on = body.get("enable_cache_dit", on)
            said |= body.get("cache_dit_params", {})
        if on and (self.flags.get("enable-breakable-cuda-graph") == "true" or os.environ.get("FAKE_GRAPH")):
            print("Cache-DiT was requested but is disabled because breakable CUDA graphs are enabled.", flush=True)
            on = False
        return (said["residual_diff_threshold"], int(said["max_warmup_steps"])) if on else None

    def generate(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of an answer."""
        with self.busy:
            self.served += 1
            cache = self.cache(body)
            misdeed = json.loads(os.environ.get("FAKE_MISDEEDS", "{}")).get(str(cache[0]) if cache else "none")
            if misdeed and self.served >= 3:
                answer = self.misbehave(misdeed)
                if answer is not None:
                    return answer
            if self.behind is not None:
                return self.forward(body)
            return 200, json.dumps(self.painted(body, cache)).encode()

    def misbehave(self, misdeed: str) -> tuple[int, bytes] | None:
        if misdeed == "die":
            print("RuntimeError: CUDA error: an illegal memory access was encountered", flush=True)
            os._exit(9)
        if misdeed == "status_500_first":  # as uvicorn does: its line of the access, and then what was wrong
            print(
                '\x1b[32mINFO\x1b[0m: "POST /v1/images/generations" \x1b[91m500 Internal Server Error\x1b[0m',
                flush=True,
            )
            threading.Timer(0.2, print, ("RuntimeError: no rotary_emb\nCheck the load logs.",), {"flush": True}).start()
            return 500, b"Internal Server Error"
        if misdeed == "status_500":
            return 500, json.dumps({"detail": "Error executing request: no kernel image"}).encode()
        if misdeed == "broken":
            return 200, json.dumps({"data": [{"b64_json": base64.b64encode(b"no image").decode()}]}).encode()
        if misdeed == "half":
            return 0, b'{"data": [{"b64_'
        assert misdeed == "small", misdeed
        return 200, json.dumps({"data": [{"b64_json": picture(16, 16, 0, 0)}]}).encode()

    def painted(self, body: dict[str, Any], cache: tuple[float, int] | None) -> dict[str, Any]:
        width, height = map(int, body["size"].split("x"))
        steps = body["num_inference_steps"] + int(os.environ.get("FAKE_MORE_STEPS", "0"))
        cached = [step for step in range(steps) if cache and step >= cache[1] and 0.5 / (step + 1) < cache[0]]
        spent_s = [STEP_S * (SHARE if step in cached else 1) for step in range(steps)]
        time.sleep(sum(spent_s))
        if body.get("perf_dump_path"):
            dump(body["perf_dump_path"], spent_s)
        seed = body["seed"] + sum(body["prompt"].encode())
        form = body.get("output_format", "png")
        images = [picture(width, height, seed + k, len(cached), form) for k in range(body["n"])]
        return {
            "id": "x",
            "created": 1,
            "data": [{"b64_json": image, "revised_prompt": body["prompt"]} for image in images],
            "inference_time_s": sum(spent_s),
            "peak_memory_mb": 100.0,
        }

    def forward(self, body: dict[str, Any]) -> tuple[int, bytes]:
        kept = {key: value for key, value in body.items() if key not in ("max_sequence_length", "perf_dump_path")}
        request = urllib.request.Request(
            f"{self.behind}/v1/images/generations", json.dumps(kept).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()


def picture(width: int, height: int, seed: int, drift: int, form: str = "png") -> str:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 200, (height, width, 3)).astype(np.uint8) + np.uint8(drift)
    held = io.BytesIO()
    Image.fromarray(noise).save(held, format=form.upper())
    return base64.b64encode(held.getvalue()).decode()


def dump(path: str, spent_s: list[float]) -> None:
    """As SGLang's PerformanceLogger.dump_benchmark_report writes it."""
    report = {
        "timestamp": "2026-11-27T09:00:00+00:00",
        "request_id": "x",
        "commit_hash": "N/A",
        "tag": "server_perf_dump",
        "total_duration_ms": 1000 * sum(spent_s),
        "steps": [
            {"name": "InputValidationStage", "duration_ms": 0.1},
            {"name": "TextEncodingStage", "duration_ms": 12.5},
            {"name": "ZImageProgressiveDenoisingStage", "duration_ms": 1000 * sum(spent_s)},
            {"name": "DecodingStage", "duration_ms": 25.0},
        ],
        "denoise_steps_ms": [{"step": step, "duration_ms": 1000 * s} for step, s in enumerate(spent_s)],
        "memory_checkpoints": {},
        "meta": {"model": "x"},
    }
    with open(path, "w", encoding="utf-8") as out:
        json.dump(report, out)


def zbench_serve() -> str:
    """The address of a zbench that serves the tiny pipeline, once it does."""
    command = [sys.executable, "-m", "zbench", "serve", "pipeline=zimage_tiny", "hardware=cpu", "--port", "0"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert served.stdout is not None
    line = served.stdout.readline()
    print("behind it:", line, flush=True)
    return next(word for word in line.split() if word.startswith("http"))


class Handler(BaseHTTPRequestHandler):
    server_of: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as uvicorn has it; else an answer on a connection that is kept waits 40 ms

    def do_GET(self) -> None:
        self.answer(200, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, raw = self.server_of.generate(body)
        if status:
            self.answer(status, raw)
        else:  # closes half-way
            self.send_response(200)
            self.send_header("content-length", "100000")
            self.end_headers()
            self.wfile.write(raw)
            self.close_connection = True

    def answer(self, status: int, raw: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


def plain(value: str) -> Any:
    return {"true": True, "false": False}.get(value, int(value) if value.isdecimal() else value)


def held(flags: dict[str, str]) -> list[socket.socket]:
    """Ports of its own processes, which SGLang wants as they are with --strict-ports."""
    found = []
    for name, usual in {"scheduler-port": 5555, "master-port": 30005}.items():
        found.append(socket.socket())
        port = int(flags.get(name, usual))
        try:
            found[-1].bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"RuntimeError: {name} {port} is unavailable and --strict-ports is enabled.")
    return found


def serve(version: str, words: list[str]) -> None:
    from zbench.engines.sglang.versions import accepted

    takes = accepted(version)
    unknown = [word for word in words[::2] if not takes.takes(word)]
    if unknown:
        sys.exit(f"sglang serve: error: unrecognized arguments: {' '.join(unknown)}")
    flags = {word.removeprefix("--"): value for word, value in zip(words[::2], words[1::2], strict=True)}
    told = {name: value for name, value in os.environ.items() if name.startswith(("SGLANG_", "HF_", "MALLOC_"))}
    if "FAKE_LAUNCHES" in os.environ:
        with open(os.environ["FAKE_LAUNCHES"], "a", encoding="utf-8") as out:
            out.write(json.dumps({"flags": flags, "environment": told}) + "\n")
    settled = {name.replace("-", "_"): plain(value) for name, value in flags.items()}
    print(f"[11-27 09:00:00] server_args: {json.dumps(settled | json.loads(os.environ.get('FAKE_SETTLES', '{}')))}")
    ports = held(flags) if flags.get("strict-ports") == "true" else []
    start = os.environ.get("FAKE_START")
    if start == "dies":
        print("loading the model")
        sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 11.50 GiB")
    scheduler = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", scheduler, "fake-scheduler"], start_new_session=True)
    if start == "never_ready":
        print("Loading pipeline components: 17%", flush=True)
        time.sleep(600)
    Handler.server_of = Server(version, flags)
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer((flags["host"], int(flags["port"])), Handler)
    print("The server is fired up and ready to roll!", flush=True)
    server.serve_forever()
    del ports


if __name__ == "__main__":
    as_version = os.environ.get("FAKE_VERSION", "0.5.23")
    if sys.argv[1:] == ["version"]:
        print(f"sglang version: {as_version}\ngit revision: 0000000")
    else:
        assert sys.argv[1] == "serve"
        serve(as_version, sys.argv[2:])
