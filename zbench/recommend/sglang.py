"""A trial as lines to type for SGLang: `sglang serve` with its environment, and a request.

Names follow sglang 0.5.23; older versions may lack a flag and then refuse it by name. Starts nothing,
and refuses to leave to a default what decides the result: steps, size, seed and offload are always set.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from zbench.config import DBCacheConfig, SCMConfig
from zbench.trial import Trial

MODEL = "Tongyi-MAI/Z-Image-Turbo"
FULL_SIZE = ("zimage_turbo", "zimage")
"""Pipelines that SGLang serves under their own names and sizes."""

PORT = 30000


@dataclass(frozen=True)
class SGLangLaunch:
    """A server's environment and arguments, one request's body, and what the reader must know."""

    environment: dict[str, str]
    arguments: tuple[str, ...]
    request: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def command(self) -> str:
        """Environment and `sglang serve` on one line, quoted for a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*settings, shlex.join(self.arguments)])

    @property
    def request_command(self) -> str:
        """The request, as curl sends it."""
        body = json.dumps(self.request, ensure_ascii=False)
        url = f"http://127.0.0.1:{PORT}/v1/images/generations"
        return shlex.join(["curl", "-s", url, "-H", "Content-Type: application/json", "-d", body])


def sglang_launch(trial: Trial) -> SGLangLaunch:
    """The same configuration for SGLang-diffusion, as near as its flags come; `notes` say where they do not."""
    notes: list[str] = []
    arguments = ["sglang", "serve", "--model-path", _model(trial, notes), "--port", str(PORT)]
    arguments += _parallel_flags(trial)
    arguments += _offload_flags(trial, notes)
    arguments += _compute_flags(trial, notes)
    return SGLangLaunch(_cache_environment(trial, notes), tuple(arguments), _request(trial, notes), tuple(notes))


def _model(trial: Trial, notes: list[str]) -> str:
    pipeline = trial.pipeline
    if pipeline.weights not in ("auto", "random"):
        return pipeline.weights
    if pipeline.name not in FULL_SIZE:
        notes.append(f"These settings were measured on {pipeline.name}; they are not validated on Z-Image-Turbo.")
    return pipeline.hub_id or MODEL


def _parallel_flags(trial: Trial) -> list[str]:
    p = trial.parallel
    flags = ["--num-gpus", str(p.world_size), "--tp-size", str(p.tp_size)]
    flags += ["--sp-degree", str(p.ulysses_size * p.ring_size)]
    flags += ["--ulysses-degree", str(p.ulysses_size), "--ring-degree", str(p.ring_size)]
    return [*flags, "--attention-backend", "fa"] if p.ring_size > 1 else flags


def _offload_flags(trial: Trial, notes: list[str]) -> list[str]:
    """All set: SGLang's `auto` decides by the memory that happens to be free."""
    mode = trial.offload.mode
    layerwise = mode in ("group", "sequential")
    if layerwise:
        notes.append(f"offload.mode={mode} has no exact counterpart in SGLang; its layerwise offload is the nearest.")
    values = {
        "--dit-cpu-offload": mode in ("dit", "all"),
        "--dit-layerwise-offload": layerwise,
        "--text-encoder-cpu-offload": mode in ("text_encoder", "all") or layerwise,
        "--image-encoder-cpu-offload": mode in ("text_encoder", "all") or layerwise,
        "--vae-cpu-offload": mode in ("vae", "all") or layerwise,
        "--pin-cpu-memory": trial.offload.pin_memory,
    }
    return [part for flag, on in values.items() for part in (flag, _boolean(on))]


def _compute_flags(trial: Trial, notes: list[str]) -> list[str]:
    compute = trial.compute
    flags: list[str] = []
    if compute.compile:
        flags += ["--enable-torch-compile", "true", "--regional-compile", "true"]
    if isinstance(trial.cache, DBCacheConfig):
        flags += ["--enable-breakable-cuda-graph", "false"]
        notes.append("SGLang's breakable CUDA graph is off: left to its default it may silently turn DBCache off.")
    if compute.dtype != "auto":
        notes.append(f"compute.dtype={compute.dtype} is not carried over.")
    return flags


def _cache_environment(trial: Trial, notes: list[str]) -> dict[str, str]:
    cache, prefix = trial.cache, "SGLANG_CACHE_DIT_"
    if not isinstance(cache, DBCacheConfig):
        return {f"{prefix}ENABLED": "false"}
    values = {
        "ENABLED": "true",
        "FN": str(cache.Fn_compute_blocks),
        "BN": str(cache.Bn_compute_blocks),
        "WARMUP": str(cache.max_warmup_steps),
        "RDT": f"{cache.residual_diff_threshold:g}",
        "MC": str(cache.max_continuous_cached_steps),
        "TAYLORSEER": _boolean(cache.enable_taylorseer),
        "TS_ORDER": str(cache.taylorseer_order),
    }
    if isinstance(cache, SCMConfig):
        values |= {"SCM_PRESET": cache.scm_preset, "SCM_POLICY": cache.scm_policy}
        notes.append("The step mask depends on the number of steps, so the request must keep num_inference_steps.")
    if trial.parallel.world_size > 1:
        notes.append("SGLang warns about DBCache together with several GPUs; compare its images before relying on it.")
    return {f"{prefix}{name}": value for name, value in values.items()}


def _request(trial: Trial, notes: list[str]) -> dict[str, Any]:
    steps = trial.pipeline.steps
    default = "its own default" if trial.pipeline.name == "zimage" else "its default of 9"
    notes.append(
        f"Steps are set by each request: without num_inference_steps={steps} in its body SGLang makes {default}."
    )
    width, height = trial.pipeline.width, trial.pipeline.height
    if trial.pipeline.name not in FULL_SIZE:
        width = height = 1024
    prompts = trial.workload.prompts
    return {
        "prompt": prompts[0].text if prompts else "",
        "size": f"{width}x{height}",
        "num_inference_steps": steps,
        "guidance_scale": trial.pipeline.guidance_scale,
        "seed": trial.workload.seeds[0] if trial.workload.seeds else 0,
        "response_format": "b64_json",
    }


def _boolean(on: bool) -> str:
    return "true" if on else "false"
