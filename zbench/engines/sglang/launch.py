"""A trial as lines to type for SGLang: `sglang serve` with its environment, and a request.

Names follow sglang 0.5.23; older versions may lack a flag and then refuse it by name. Starts nothing,
and refuses to leave to a default what decides the result: steps, size, seed and offload are always set.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zbench.engines.sglang.degrees import refusal
from zbench.methods import dtypes, lora, offload, parallel
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims
from zbench.methods.sglang import SGLangPart
from zbench.sanitize import printable, shell_line
from zbench.trial import Trial, geometry_of
from zbench.zimage.on_disk import names_a_file

MODEL = "Tongyi-MAI/Z-Image-Turbo"
FULL_SIZE = ("zimage_turbo", "zimage")
"""Pipelines that SGLang serves under their own names and sizes."""

PORT = 30000
COMPILED = ("--enable-torch-compile", "true", "--regional-compile", "true")


@dataclass(frozen=True)
class SGLangLaunch:
    """A server's environment and arguments, one request's body, and what the reader must know, a line each."""

    environment: dict[str, str]
    arguments: tuple[str, ...]
    request: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def command(self) -> str:
        """Environment and `sglang serve` on one line, quoted for a shell."""
        settings = [f"{name}={shell_line([value])}" for name, value in self.environment.items()]
        return " ".join([*settings, shell_line(self.arguments)])

    @property
    def request_command(self) -> str:
        """The request, as curl sends it."""
        body = json.dumps(self.request, ensure_ascii=False)
        url = f"http://127.0.0.1:{PORT}/v1/images/generations"
        return shell_line(["curl", "-s", url, "-H", "Content-Type: application/json", "-d", body])


def sglang_launch(trial: Trial) -> SGLangLaunch:
    """The same configuration for SGLang-diffusion, as near as its flags come; `notes` say where they do not."""
    cache, dims = method_of(trial.cache), ParallelDims.of(trial.parallel)
    model, model_notes = _model(trial)
    request, request_notes = _request(trial)
    other = f"It was measured with engine={trial.engine.name}, which is not zbench's own; SGLang runs its own engine."
    parts = (
        SGLangPart(notes=() if trial.engine.target.startswith("zbench.") else (other,)),
        SGLangPart(("sglang", "serve", "--model-path", model, "--port", str(PORT)), notes=model_notes),
        lora.sglang_part(trial.pipeline),
        parallel.sglang_part(trial.parallel),
        SGLangPart(notes=_refused(trial, dims)),
        offload.sglang_part(trial.offload),
        SGLangPart(COMPILED if trial.compute.compile else ()),
        cache.sglang_flags(),
        dtypes.sglang_part(trial.compute.dtype),
        cache.sglang_environment(dims.devices),
        SGLangPart(notes=request_notes),
    )
    return SGLangLaunch(
        environment={name: value for part in parts for name, value in part.environment.items()},
        arguments=tuple(flag for part in parts for flag in part.flags),
        request=request,
        notes=tuple(printable(note) for part in parts for note in part.notes),
    )


def _refused(trial: Trial, dims: ParallelDims) -> tuple[str, ...]:
    """What is to be said where SGLang would not start."""
    if dims.devices == 1:
        return ()
    why = refusal(dims, geometry_of(trial.pipeline).transformer.n_heads)
    return () if why is None else (f"SGLang refuses these degrees: {why}.",)


def _model(trial: Trial) -> tuple[str, tuple[str, ...]]:
    """The folder or hub id to serve, and what is to be said about it."""
    pipeline = trial.pipeline
    is_file = names_a_file(Path(os.path.expanduser(pipeline.weights)))
    if pipeline.weights not in ("auto", "random") and not is_file:
        return pipeline.weights, ()
    said = []
    if is_file:
        said.append(f"Measured with the transformer of {pipeline.weights}, which this does not load.")
    if pipeline.name not in FULL_SIZE:
        said.append(f"These settings were measured on {pipeline.name}; they are not validated on Z-Image-Turbo.")
    return pipeline.hub_id or MODEL, tuple(said)


def _request(trial: Trial) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A request's body, and what is to be said about it."""
    steps = trial.pipeline.steps
    default = "its own default" if trial.pipeline.name == "zimage" else "its default of 9"
    said = f"Steps are set by each request: without num_inference_steps={steps} in its body SGLang makes {default}."
    width, height = trial.pipeline.width, trial.pipeline.height
    if trial.pipeline.name not in FULL_SIZE:
        width = height = 1024
    prompts = trial.workload.prompts
    negative = prompts[0].negative_prompt if prompts else ""
    body = {
        "prompt": prompts[0].text if prompts else "",
        **({"negative_prompt": negative} if negative else {}),
        "size": f"{width}x{height}",
        "num_inference_steps": steps,
        "guidance_scale": trial.pipeline.guidance_scale,
        "seed": trial.workload.seeds[0] if trial.workload.seeds else 0,
        "response_format": "b64_json",
    }
    return body, (said,)
