"""A trial for SGLang: the line that serves it, its environment, a compose file, requests, and what checks it there.

What was measured on zbench's own pipeline is a candidate for SGLang: `check.sh` measures it there.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from zbench.config import WorkloadConfig
from zbench.emit.emission import Emission, EmittedFile, commented, yaml_text
from zbench.emit.overrides import engine_choice, zbench_command, zbench_overrides
from zbench.engines.formats import EXACT, asked_format
from zbench.engines.sglang.launch import HOST, PORT, SGLangLaunch, sglang_launch
from zbench.engines.sglang.versions import NEWEST, Accepted, accepted, fitted, known_versions
from zbench.engines.sglang.words import cache_fields, requests_take_caches
from zbench.methods.cache import method_of
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
UNCHECKED = (
    "zbench run engine=sglang cannot measure it: {}. So check.sh asks SGLang's own client, which looks at no image; "
    "sglang.sh has to serve then."
)
CHECKED_REQUESTS = 20
PATH_FLAGS = ("--model-path", "--vae-path", "--lora-path")


def emit_sglang(trial: Trial, version: str | None = None, measured: str | None = None) -> Emission:
    """Everything that SGLang `version` is to be told, without the flags that it lacks. The newest known by default.

    Raises ConfigError for a version that nobody knows.
    """
    version = version or NEWEST
    takes = accepted(version)
    launch = fitted(_with_caches(trial, sglang_launch(trial), takes), takes)
    image = takes.version if takes.version in known_versions() else NEWEST
    check, why_none = check_of(trial, launch, version)
    candidate = "For SGLang it is a candidate; check.sh measures it there."
    notes = (
        f"{measured or NOT_MEASURED}.",
        *([candidate] if trial.engine.name != SGLANG else []),
        *launch.notes,
        *_of_format(trial),
        *([printable(UNCHECKED.format(why_none))] if why_none is not None else []),
    )
    script = "".join(f"export {setting}\n" for setting in launch.settings)
    requests = "".join(f"{json_text(json.dumps(body, ensure_ascii=False))}\n" for body in launch.requests)
    files = (
        EmittedFile("sglang.sh", f"{BASH}{commented(*notes)}{script}exec {shell_line(launch.arguments)}\n"),
        EmittedFile("sglang.env", "".join(f"{setting}\n" for setting in launch.settings)),
        EmittedFile("docker-compose.yaml", _compose(launch, image)),
        EmittedFile("request.json", f"{json_text(json.dumps(launch.request, ensure_ascii=False, indent=2))}\n"),
        EmittedFile("request.sh", f"{BASH}{launch.request_command}\n"),
        EmittedFile("requests.jsonl", requests),
        EmittedFile("check.sh", f"{BASH}{check}\n"),
        EmittedFile("load.sh", f"{BASH}{load_command(launch, trial.workload)}\n"),
    )
    return Emission("sglang", files, notes, check)


def check_of(trial: Trial, launch: SGLangLaunch, version: str = NEWEST) -> tuple[str, str | None]:
    """The command that measures it on SGLang; where zbench cannot, SGLang's own client, and why.

    zbench starts the server itself, holds latency and images against those without skipping, and ends it.
    """
    from zbench.engines.sglang import SGLangEngine

    own = engine_choice(SGLANG)
    asked = asked_format(trial)
    options = own.options if asked is None else {**own.options, "output_format": asked}
    engine = trial.engine if trial.engine.target == own.target else replace(own, options=options)
    there = replace(trial, engine=engine, hardware=None)
    options = {**engine.options, "version": version}
    problem = SGLangEngine(base_url=getattr(engine, "base_url", None), **options).supports(there)
    if problem is not None:
        return load_command(launch, trial.workload), problem
    return zbench_command(there, zbench_overrides(there)), None


def _of_format(trial: Trial) -> list[str]:
    """What is to be said of pictures that are not exact."""
    asked = asked_format(trial)
    if asked in (None, EXACT):
        return []
    judged = "its images are judged against a reference through the same format"
    return [f"Requests ask for output_format={asked}, which is lossy: {judged}. load.sh's client cannot ask for it."]


def _with_caches(trial: Trial, launch: SGLangLaunch, takes: Accepted) -> SGLangLaunch:
    """Requests that say the cache too, where the version takes that: they hold on a server that others use as well."""
    if method_of(trial.cache).target is not None or not requests_take_caches(trial, takes):
        return launch
    bodies = tuple(body | cache_fields(trial) for body in launch.requests)
    return replace(launch, request=bodies[0], requests=bodies)


def load_command(launch: SGLangLaunch, workload: WorkloadConfig) -> str:
    """SGLang's own client against the server: requests of the same work, as the workload has them come.

    One after another, where it names no load that this client knows.
    """
    body = launch.request
    width, _, height = str(body["size"]).partition("x")
    at_once, requests = 1, CHECKED_REQUESTS
    if workload.arrivals in ("concurrent", "poisson"):
        requests = workload.requests or (workload.concurrency or 1 if workload.rate_per_s is None else CHECKED_REQUESTS)
        at_once = workload.concurrency or requests
    rate = {} if workload.rate_per_s is None else {"--request-rate": f"{workload.rate_per_s:g}"}
    told = {
        "--base-url": f"http://{HOST}:{PORT}",
        "--model": launch.arguments[launch.arguments.index("--model-path") + 1],
        "--task": "text-to-image",
        "--dataset": "random",
        "--num-prompts": str(requests),
        "--max-concurrency": str(at_once),
        **rate,
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
