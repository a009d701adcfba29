"""`zbench serve` as a user runs it."""

import base64
import io
import json
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from commands import SYNTHETIC, end, serving, zbench
from PIL import Image

from zbench.cli import main

PATH = "/v1/images/generations"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_order_with_exit_code_0(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, *SYNTHETIC) as (process, url):
        assert httpx.post(f"{url}{PATH}", json={"prompt": "a cat"}, timeout=60).status_code == 200
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "loading zimage_tiny" in err and "warming up with one request" in err
    assert err.rstrip().endswith("zbench serve: stopped") and "Traceback" not in err
    assert not list(tmp_path.iterdir()), "it keeps no record"


def test_a_sweep_of_one_server_compares_sizes_of_batches(tmp_path: Path) -> None:
    """Each trial's requests say how many may share a call; four are there at once."""
    small = ("pipeline.height=32", "pipeline.width=32", "pipeline.steps=2")  # what the synthetic engine paints
    server = (*SYNTHETIC, *small, "engine.options.round_s=0.05", "--batching-max-size", "4")
    load = ("workload=single", "workload.arrivals=concurrent", "workload.concurrency=4", "workload.requests=12")
    with serving(tmp_path, *server) as (_, url):
        words = (
            "hardware=cpu",
            "pipeline=zimage_tiny",
            *small,
            *load,
            "engine=openai_images",
            f"engine.base_url={url}",
        )
        done = zbench(tmp_path, "sweep", *words, "engine.options.fields.batching_max_size=1,4", timeout_s=280)
        metrics = httpx.get(f"{url}/metrics").text.splitlines()
    assert done.returncode == 0, done.stderr
    [journal] = tmp_path.glob("runs/*/records.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    sizes = [record["config"]["engine"]["options"]["fields"]["batching_max_size"] for record in records]
    assert sorted(sizes) == [1, 4] and {record["state"] for record in records} == {"COMPLETE"}
    counts = {line.split(" ")[0]: float(line.split(" ")[1]) for line in metrics if line.startswith("zbench_batch_size")}
    alone = counts['zbench_batch_size_bucket{le="1.0"}']
    assert 12 <= alone < counts["zbench_batch_size_count"], "all of the first trial's, and not all of the second's"


def test_the_image_over_http_is_that_of_zbench_run(tmp_path: Path) -> None:
    words = ("hardware=cpu", "workload=single", "pipeline.steps=3", "pipeline.height=64", "pipeline.width=96")
    done = zbench(tmp_path, "run", *words, "measure=quick", timeout_s=280)
    assert done.returncode == 0, done.stderr
    [line] = next(tmp_path.glob("runs/run-*/records.jsonl")).read_text().splitlines()
    record: dict[str, Any] = json.loads(line)
    [prompt] = record["config"]["workload"]["prompts"]
    [kept] = next(tmp_path.glob("runs/run-*/artifacts/*")).glob("*.png")
    words = ("hardware=cpu", "workload=single", "pipeline.height=96", "pipeline.width=64")
    body = {"prompt": prompt["text"], "seed": 0, "num_inference_steps": 3, "size": "96x64"}
    with serving(tmp_path, *words) as (process, url):
        answer = httpx.post(f"{url}{PATH}", json=body, timeout=240).json()
        err = end(process)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))))
    assert (image == np.asarray(Image.open(kept).convert("RGB"))).all()
    assert process.returncode == 0, err


def test_without_its_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("fastapi", "uvicorn"):
        monkeypatch.setitem(sys.modules, name, None)  # Python's own way to say that there is none
    assert main(["serve", "hardware=cpu", "--port", "0"]) == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert line == "zbench: error: zbench serve needs fastapi, uvicorn; pip install 'zbench[serve]' brings them"


def test_a_port_that_is_taken_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "hardware=cpu", "--port", str(port)]) == 2
    err = capfd.readouterr().err.splitlines()
    assert err[-1].endswith(f"--port {port}: Address already in use; give another, --port 0 takes one that is free")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--port", "70000"], "--port 70000: must be 0 to 65535"),
        (["--port", "x"], "--port: invalid int value: 'x'; zbench serve --help says more"),
        (["--queue", "0"], "--queue 0: must be 1 to 100000"),
        (["--batching-max-size", "0"], "--batching-max-size 0: must be 1 to 64"),
        (["--batching-max-size", "4", "--batching-delay-ms", "nan"], "--batching-delay-ms nan: must be 0 to 10000"),
        (["--batching-delay-ms", "5"], "--batching-delay-ms 5: nothing is waited for with --batching-max-size 1"),
        (["--batching-max-size", "4", "compute=compiled"], "--batching-max-size 4: compute.compile=true: is made for"),
        (["--model-name", ""], "--model-name '': is empty"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: "),
        (["--nope"], "--nope: no such flag"),
        (["pipeline.steps=4,8"], "pipeline.steps=4,8: one run takes one value"),
        (["hardware=b300"], "hardware=b300: is not here"),
        (["pipeline.batch_size=2"], "pipeline.batch_size=2: a served call makes one image"),
        (["pipeline.images_per_prompt=2"], "pipeline.images_per_prompt=2: a served call makes one image"),
        (["cache=dbcache", "cache.Fn_compute_blocks=11"], "exceed the 10 blocks"),
        (["pipeline.weights=/no/such"], "pipeline.weights=/no/such"),
        (["pipeline.stepz=3"], "pipeline.stepz"),
    ],
)
def test_a_command_that_falls_short_is_one_line(args: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    here = [] if "hardware=b300" in args else ["hardware=cpu"]
    assert main(["serve", "pipeline=zimage_tiny", *here, *args]) == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("zbench: error: ") and says in line


def test_another_server_is_not_served(capfd: pytest.CaptureFixture[str]) -> None:
    client = ["engine=openai_images", "engine.base_url=http://127.0.0.1:9"]
    assert main(["serve", "hardware=cpu", "--port", "0", *client]) == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("zbench: error: engine=openai_images: is a server's client"), line
