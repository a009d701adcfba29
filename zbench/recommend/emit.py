"""A trial as lines to type: `zbench run`, and `sglang serve` with its environment and a request.

Names follow sglang 0.5.23; older versions may lack a flag and then refuse it by name. Starts nothing,
and refuses to leave to a default what decides the result: steps, size, seed and offload are always set.
"""

import json
import re
import shlex
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from zbench.config import ComputeConfig, DBCacheConfig, SCMConfig
from zbench.trial import Trial

MODEL = "Tongyi-MAI/Z-Image-Turbo"
PORT = 30000
PLAIN = re.compile(r"[A-Za-z0-9_./:@%+-]+")  # what Hydra's grammar takes without quotes


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


def zbench_overrides(trial: Trial) -> list[str]:
    """Hydra overrides that compose this trial again, every cache parameter spelled out."""
    pipeline = trial.pipeline
    overrides = [f"pipeline={pipeline.name}"]
    keys = ["height", "width", "steps", "guidance_scale", "max_sequence_length"]
    keys = ["weights", *keys] if pipeline.weights != "auto" else keys
    overrides += [_override("pipeline", key, getattr(pipeline, key)) for key in keys]
    if trial.engine.name != "reference":
        overrides.append(f"engine={trial.engine.name}")
    if trial.hardware is not None:
        overrides.append(f"hardware={trial.hardware.name}")
    overrides += _not_default("parallel", trial.parallel)
    if trial.offload.mode != "none":
        overrides += [f"offload={trial.offload.mode}", *_not_default("offload", trial.offload, but=("mode",))]
    overrides += _cache_overrides(trial)
    skipped = ("device",) if trial.hardware is not None else ()
    overrides += _not_default("compute", trial.compute, but=skipped)
    overrides += [f"workload={trial.workload.name}", _override("workload", "seeds", trial.workload.seeds)]
    return overrides


def zbench_command(trial: Trial) -> str:
    """`zbench run` with `zbench_overrides`, quoted for a shell."""
    return shlex.join(["zbench", "run", *zbench_overrides(trial)])


def sglang_launch(trial: Trial) -> SGLangLaunch:
    """The same configuration for SGLang-diffusion, as near as its flags come; `notes` say where they do not."""
    notes: list[str] = []
    arguments = ["sglang", "serve", "--model-path", _model(trial, notes), "--port", str(PORT)]
    arguments += _parallel_flags(trial)
    arguments += _offload_flags(trial, notes)
    arguments += _compute_flags(trial, notes)
    return SGLangLaunch(_cache_environment(trial, notes), tuple(arguments), _request(trial, notes), tuple(notes))


def _cache_overrides(trial: Trial) -> list[str]:
    cache = trial.cache
    if not isinstance(cache, DBCacheConfig):
        return ["cache=none"]
    taylorseer = "taylorseer" if cache.enable_taylorseer else "dbcache"
    choice = "scm" if isinstance(cache, SCMConfig) else taylorseer
    keys = [f.name for f in fields(cache) if f.name not in ("grid", "method")]
    return [f"cache={choice}", *(_override("cache", key, getattr(cache, key)) for key in keys)]


def _not_default(group: str, config: object, but: tuple[str, ...] = ()) -> list[str]:
    assert is_dataclass(config) and not isinstance(config, type)
    return [
        _override(group, f.name, getattr(config, f.name))
        for f in fields(config)
        if f.name not in ("grid", *but) and getattr(config, f.name) != f.default
    ]


def _override(group: str, key: str, value: object) -> str:
    return f"{group}.{key}={_hydra_value(value)}"


def _hydra_value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_hydra_value, value))}]"
    text = str(value)
    if isinstance(value, int | float) or PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _model(trial: Trial, notes: list[str]) -> str:
    pipeline = trial.pipeline
    if pipeline.weights not in ("auto", "random"):
        return pipeline.weights
    if pipeline.name != "zimage_turbo":
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
    cached = isinstance(trial.cache, DBCacheConfig)
    layerwise = mode in ("group", "sequential") and not cached
    if mode in ("group", "sequential"):
        instead = "moves the whole transformer at once" if cached else "moves it layer by layer"
        why = "; its layer-by-layer offload refuses Cache-DiT" if cached else ""
        notes.append(f"offload.mode={mode} has no exact counterpart in SGLang, which here {instead}{why}.")
    whole = mode != "none" and not layerwise
    values = {
        "--dit-cpu-offload": whole,
        "--dit-layerwise-offload": layerwise,
        "--text-encoder-cpu-offload": mode != "none",
        "--image-encoder-cpu-offload": mode != "none",
        "--vae-cpu-offload": mode != "none",
    }
    return [part for flag, on in values.items() for part in (flag, _boolean(on))]


def _compute_flags(trial: Trial, notes: list[str]) -> list[str]:
    compute: ComputeConfig = trial.compute
    flags: list[str] = []
    if compute.compile:
        flags += ["--enable-torch-compile", "true", "--regional-compile", "true"]
    if isinstance(trial.cache, DBCacheConfig) or compute.compile:
        flags += ["--enable-breakable-cuda-graph", "false"]
        notes.append(
            "SGLang's breakable CUDA graph is off: it silently turns DBCache off and excludes torch.compile, "
            "and its default would pick it."
        )
    if compute.dtype not in ("auto", "bfloat16"):
        notes.append(f"compute.dtype={compute.dtype} is not carried over: SGLang computes in bfloat16.")
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
    notes.append(
        f"Steps are set by each request: without num_inference_steps={steps} in its body SGLang makes its default of 9."
    )
    width, height = trial.pipeline.width, trial.pipeline.height
    if trial.pipeline.name != "zimage_turbo":
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
