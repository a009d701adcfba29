"""A trial for SGLang: the line that serves it, its environment, a compose file, requests, and what checks it there.

What was measured on zbench's own pipeline is a candidate for SGLang: `check.sh` measures it there.
"""

import json
import os
from pathlib import Path
from typing import Any

from zbench.emit.emission import Emission, EmittedFile, commented, yaml_text
from zbench.engines.sglang.launch import HOST, PORT, SGLangLaunch, sglang_launch
from zbench.engines.sglang.versions import INSTALLED, NEWEST, accepted, fitted
from zbench.sanitize import json_text, printable, shell_line
from zbench.trial import Trial

BASH = "#!/usr/bin/env bash\n"
SGLANG = "sglang"
NOT_MEASURED = "Nothing was measured: these words come from a configuration alone"
IMAGE = "lmsysorg/sglang"
CACHE = "/models/huggingface"  # in its container, where HF_HOME names it
EVERYWHERE = "0.0.0.0"  # inside its container; the host publishes the port on loopback alone
IMAGE_NOTE = (
    "Nobody has run this compose file. SGLang's page installs its diffusion packages into the image first: "
    "pip install 'sglang[diffusion]=={version}'."
)
CHECKED_REQUESTS = 20
PATH_FLAGS = ("--model-path", "--vae-path", "--lora-path")


def emit_sglang(trial: Trial, version: str | None = None, measured: str | None = None) -> Emission:
    """Everything that SGLang `version` is to be told, without the flags that it lacks. The newest known by default.

    Raises ConfigError for a version that nobody knows.
    """
    version = version or NEWEST
    launch = fitted(sglang_launch(trial), accepted(version))
    check = check_command(launch)
    candidate = "For SGLang it is a candidate; check it there, once it serves (check.sh)."
    notes = (f"{measured or NOT_MEASURED}.", *([candidate] if trial.engine.name != SGLANG else []), *launch.notes)
    script = "".join(f"export {setting}\n" for setting in launch.settings)
    requests = "".join(f"{json_text(json.dumps(body, ensure_ascii=False))}\n" for body in launch.requests)
    files = (
        EmittedFile("sglang.sh", f"{BASH}{commented(*notes)}{script}exec {shell_line(launch.arguments)}\n"),
        EmittedFile("sglang.env", "".join(f"{setting}\n" for setting in launch.settings)),
        EmittedFile("docker-compose.yaml", _compose(launch, NEWEST if version == INSTALLED else version)),
        EmittedFile("request.json", f"{json_text(json.dumps(launch.request, ensure_ascii=False, indent=2))}\n"),
        EmittedFile("request.sh", f"{BASH}{launch.request_command}\n"),
        EmittedFile("requests.jsonl", requests),
        EmittedFile("check.sh", f"{BASH}{check}\n"),
    )
    return Emission("sglang", files, notes, check)


def check_command(launch: SGLangLaunch) -> str:
    """SGLang's own client against the server: as many requests, one after another, of the same work."""
    body = launch.request
    width, _, height = str(body["size"]).partition("x")
    told = {
        "--base-url": f"http://{HOST}:{PORT}",
        "--model": launch.arguments[launch.arguments.index("--model-path") + 1],
        "--task": "text-to-image",
        "--dataset": "random",
        "--num-prompts": str(CHECKED_REQUESTS),
        "--max-concurrency": "1",
        "--width": width,
        "--height": height,
        "--num-inference-steps": str(body["num_inference_steps"]),
        "--num-outputs-per-prompt": str(body["n"]),
    }
    words = [word for pair in told.items() for word in pair]
    return shell_line(["python3", "-m", "sglang.multimodal_gen.benchmarks.bench_serving", *words])


def _compose(launch: SGLangLaunch, version: str) -> str:
    """A docker compose file: the port on loopback, local folders read-only where they are, every `$` kept from it."""
    words = list(launch.arguments)
    if "--host" in words:
        words[words.index("--host") + 1] = EVERYWHERE
    mounts: list[dict[str, Any]] = [{"type": "bind", "source": "~/.cache/huggingface", "target": CACHE}]
    for flag in PATH_FLAGS:
        if flag in words:
            place = words.index(flag) + 1
            path = Path(words[place])
            if path.is_absolute() or path.exists() or words[place].startswith("."):
                words[place] = os.path.abspath(path)
                mounts.append({"type": "bind", "source": words[place], "target": words[place], "read_only": True})
    gpus = int(words[words.index("--num-gpus") + 1]) if "--num-gpus" in words else 1
    reserved = {"driver": "nvidia", "count": gpus, "capabilities": ["gpu"]}
    service = {
        "image": f"{IMAGE}:v{version}",
        "command": words,
        "environment": {**launch.environment, "HF_HOME": CACHE},
        "ports": [f"{HOST}:{PORT}:{PORT}"],
        "volumes": mounts,
        "ipc": "host",
        "shm_size": "32g",
        "deploy": {"resources": {"reservations": {"devices": [reserved]}}},
    }
    text = yaml_text(_uninterpolated({"services": {"sglang": service}}))
    return commented(printable(IMAGE_NOTE.format(version=version))) + text


def _uninterpolated(value: Any) -> Any:
    """Compose puts variables in place of `$NAME`, unless the sign is there twice."""
    if isinstance(value, dict):
        return {key: _uninterpolated(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_uninterpolated(each) for each in value]
    return value.replace("$", "$$") if isinstance(value, str) else value
