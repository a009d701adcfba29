"""A trial as lines to type for SGLang: `sglang serve` with its environment, and a request.

Names follow sglang 0.5.23; older versions may lack a flag and then refuse it by name. Starts nothing, and refuses to
leave to a default what decides the result: steps, size, seed, guidance, where noise is drawn, how the VAE decodes and
offload are always set. Every setting of the trial is in its words or in a note.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zbench.carried import OWN_NAMES, Words, notes_of_rest, uncarried
from zbench.config import ComputeConfig, PipelineConfig, Prompt
from zbench.engines.formats import EXACT, asked_format
from zbench.engines.sglang.degrees import refusal
from zbench.methods import attention, dtypes, lora, offload, parallel
from zbench.methods.cache import CacheMethod, method_of
from zbench.methods.parallel import ParallelDims
from zbench.methods.sglang import SGLangPart, spelled
from zbench.sanitize import printable, shell_line
from zbench.trial import Trial, geometry_of
from zbench.zimage.on_disk import names_a_file

TARGET = "zbench.engines.sglang:SGLangEngine"
"""Trials of this engine are measured on SGLang itself; their words are exactly what is started."""

MODEL = "Tongyi-MAI/Z-Image-Turbo"
FULL_SIZE = ("zimage_turbo", "zimage")
"""Pipelines that SGLang serves under their own names and sizes."""

HOST, PORT = "127.0.0.1", 30000
SERVED_SIDE = 1024
"""Pixels of a side where the trial's own pipeline is not one that SGLang serves."""

MOST_IMAGES = 10
"""Of one request; SGLang makes no more, whatever is asked for."""

COMPILED = SGLangPart(
    ("--enable-torch-compile", "true", "--regional-compile", "true"),
    {"SGLANG_TORCH_COMPILE_MODE": "default"},  # its own is max-autotune, which was slower than eager on an H100
    carries=("compute.compile",),
)
NOTHING = SGLangPart()
PLAIN = {"compute.device": ("cuda", "auto")}
REASONS = {
    "pipeline.width": "SGLang serves Z-Image-Turbo here, at its own size",
    "pipeline.height": "SGLang serves Z-Image-Turbo here, at its own size",
    "pipeline.max_sequence_length": "SGLang reads as many tokens as Z-Image-Turbo was made for",
    "compute.device": "SGLang runs on a GPU",
    "compute.quantization": "SGLang quantises other layers, by its own --quantization fp8",
    "compute.scope": "SGLang quantises other layers, by its own --quantization fp8",
    "offload.keep_layers": "SGLang's offload moves a text encoder whole",
    "compute.norms": "SGLang has kernels of its own for what stands around its norms",
    **dict.fromkeys(
        (f"workload.{key}" for key in ("arrivals", "concurrency", "rate_per_s", "requests")),
        "How requests come is their client's to decide; load.sh says it to SGLang's own",
    ),
}


@dataclass(frozen=True)
class SGLangLaunch:
    """A server's environment and arguments, one request's body, and what the reader must know, a line each."""

    environment: dict[str, str]
    arguments: tuple[str, ...]
    request: dict[str, Any]
    notes: tuple[str, ...]
    requests: tuple[dict[str, Any], ...] = ()
    """A body for every prompt with every seed, in the trial's order; `request` is the first."""
    uncarried: Mapping[str, object] = field(default_factory=dict)
    """Settings of the trial that ask for something and are in none of these words; names of zbench's own apart."""

    @property
    def command(self) -> str:
        """Environment and `sglang serve` on one line, quoted for a shell."""
        return " ".join([*self.settings, shell_line(self.arguments)])

    @property
    def settings(self) -> list[str]:
        """Its environment, `NAME=value` each, quoted for a shell."""
        return [f"{name}={shell_line([value])}" for name, value in self.environment.items()]

    @property
    def request_command(self) -> str:
        """The request, as curl sends it."""
        body = json.dumps(self.request, ensure_ascii=False)
        url = f"http://{HOST}:{PORT}/v1/images/generations"
        return shell_line(["curl", "-s", url, "-H", "Content-Type: application/json", "-d", body])


def sglang_launch(trial: Trial) -> SGLangLaunch:
    """The same configuration for SGLang-diffusion, as near as its flags come; `notes` say where they do not."""
    cache, dims = method_of(trial.cache), ParallelDims.of(trial.parallel)
    model, of_model = _model(trial)
    other = f"It was measured with engine={trial.engine.name}, which is not zbench's own; SGLang runs its own engine."
    address = ("--host", HOST, "--port", str(PORT), "--strict-ports", "true")
    parts = (
        SGLangPart(notes=() if trial.engine.target.startswith("zbench.") else (other,)),
        SGLangPart(("sglang", "serve", "--model-path", model, *address)),
        of_model,
        _vae(trial.pipeline),
        lora.sglang_part(trial.pipeline),
        parallel.sglang_part(trial.parallel),
        SGLangPart(notes=_refused(trial, dims)),
        attention.sglang_part(trial.compute.attention_backend, rings=dims.ring > 1),
        offload.sglang_part(trial.offload),
        COMPILED if trial.compute.compile else NOTHING,
        _graph(trial.compute),
        _settled(trial, cache),
        cache.sglang_flags(),
        dtypes.sglang_part(trial.compute.dtype),
        cache.sglang_environment(dims.devices),
        of_requests(trial),
    )
    notes = tuple(note for part in parts for note in part.notes)
    words = Words("SGLang", {key for part in parts for key in part.carries}, PLAIN, REASONS)
    requests = tuple(
        request_body(trial.with_own(prompt.own), prompt, seed)
        for prompt in _prompts(trial)
        for seed in trial.workload.seeds or [0]
    )
    return SGLangLaunch(
        environment={name: value for part in parts for name, value in part.environment.items()},
        arguments=_overruled([flag for part in parts for flag in part.flags], trial),
        request=requests[0],
        notes=tuple(map(printable, [*notes, *notes_of_rest(trial, words, notes)])),
        requests=requests,
        uncarried={key: value for key, value in uncarried(trial, words).items() if key not in OWN_NAMES},
    )


def _refused(trial: Trial, dims: ParallelDims) -> tuple[str, ...]:
    """What is to be said where SGLang would not start."""
    if dims.devices == 1:
        return ()
    why = refusal(dims, geometry_of(trial.pipeline).transformer.n_heads)
    return () if why is None else (f"SGLang refuses these degrees: {why}.",)


def _model(trial: Trial) -> tuple[str, SGLangPart]:
    """The folder or hub id to serve, and what is to be said about it."""
    pipeline = trial.pipeline
    is_file = names_a_file(Path(os.path.expanduser(pipeline.weights)))
    if pipeline.weights not in ("auto", "random") and not is_file:
        return os.path.expanduser(pipeline.weights), SGLangPart(carries=("pipeline.weights",))
    said = []
    if is_file:
        said.append(
            f"Measured with the transformer of {pipeline.weights}, which this does not load "
            f"(pipeline.weights={pipeline.weights})."
        )
    if pipeline.weights == "random":
        said.append("Measured with random weights (pipeline.weights=random); this serves trained ones.")
    if pipeline.name not in FULL_SIZE:
        said.append(f"These settings were measured on {pipeline.name}; they are not validated on Z-Image-Turbo.")
    return pipeline.hub_id or MODEL, SGLangPart(notes=tuple(said), carries=("pipeline.hub_id",))


def _vae(pipeline: PipelineConfig) -> SGLangPart:
    """How images are decoded: SGLang's own default is in tiles, another image than whole ones are."""
    own = ("--vae-path", os.path.expanduser(pipeline.vae)) if pipeline.vae is not None else ()
    tiled, sliced = spelled(pipeline.vae_tiling), spelled(pipeline.vae_slicing)
    decodes = ("--vae-tiling", tiled, "--vae-slicing", sliced, "--vae-sp", "false")
    return SGLangPart((*own, *decodes), carries=("pipeline.vae", "pipeline.vae_tiling", "pipeline.vae_slicing"))


def _graph(compute: ComputeConfig) -> SGLangPart:
    """A forward as one launch; where a cache decides, its own part turns it off."""
    if compute.graphs != "all":
        return NOTHING
    return SGLangPart(("--enable-breakable-cuda-graph", "true"), carries=("compute.graphs",))


def _settled(trial: Trial, cache: CacheMethod) -> SGLangPart:
    """Where SGLang itself is measured: that it adjusts nothing by what it finds, and captures no graph unasked."""
    if trial.engine.target != TARGET:
        return NOTHING
    if trial.compute.graphs == "all":  # of the sizes that it warms up alone
        size = f"{trial.pipeline.width}x{trial.pipeline.height}"
        return SGLangPart(("--performance-mode", "manual", "--warmup-resolutions", size))
    graph = () if cache.skips else ("--enable-breakable-cuda-graph", "false")  # a cache says so itself
    return SGLangPart(("--performance-mode", "manual", *graph))


def _overruled(words: list[str], trial: Trial) -> tuple[str, ...]:
    """The arguments with the flags that the engine was given (`engine.options.flags`), each in place of its own."""
    given = trial.engine.options.get("flags", {}) if trial.engine.target == TARGET else {}
    for name, value in given.items():
        flag, text = f"--{name}", spelled(value) if isinstance(value, bool) else str(value)
        if flag in words:
            words[words.index(flag) + 1] = text
        else:
            words += [flag, text]
    return tuple(words)


def _is_served(pipeline: PipelineConfig) -> bool:
    return pipeline.name in FULL_SIZE


def _prompts(trial: Trial) -> list[Prompt]:
    return trial.workload.prompts or [Prompt(id="none", text="")]


def of_requests(trial: Trial) -> SGLangPart:
    """What requests carry, and what is to be said about them."""
    pipeline, workload = trial.pipeline, trial.workload
    default = "its own default" if pipeline.name == "zimage" else "its default of 9"
    steps = pipeline.steps
    said = [f"Steps are set by each request: without num_inference_steps={steps} in its body SGLang makes {default}."]
    if len(workload.prompts) > 1 or len(workload.seeds) > 1:
        said.append(
            f"The request is for the first prompt of {len(workload.prompts)} with the first seed of "
            f"{len(workload.seeds)}; zbench emit --to sglang --out FOLDER writes one for each pair."
        )
    if pipeline.images > 1:
        each = f"pipeline.batch_size={pipeline.batch_size} × pipeline.images_per_prompt={pipeline.images_per_prompt}"
        most = f"; it makes at most {MOST_IMAGES} a request" if pipeline.images > MOST_IMAGES else ""
        said.append(f"{each} images of a call are n={pipeline.images} to SGLang{most}.")
    if pipeline.guidance_scale > 0:
        said.append(
            "cfg_normalization is off here and by default on in SGLang 0.5.23 for the base model; a version that takes "
            "it from no request ignores the body's, so compare its images."
        )
    carries = ["steps", "guidance_scale", "batch_size", "images_per_prompt"]
    carries += ["width", "height", "max_sequence_length"] if _is_served(pipeline) else []
    words = ["prompts.text", "prompts.negative_prompt", "prompts.steps", "seeds"]
    words += ["prompts.width", "prompts.height"] if _is_served(pipeline) else []
    return SGLangPart(
        notes=tuple(said), carries=(*(f"pipeline.{key}" for key in carries), *(f"workload.{key}" for key in words))
    )


def request_body(trial: Trial, prompt: Prompt, seed: int) -> dict[str, Any]:
    """One request. Image k of it has the seed `seed + k`, as in a call of zbench's own."""
    pipeline = trial.pipeline
    width, height = (pipeline.width, pipeline.height) if _is_served(pipeline) else (SERVED_SIDE, SERVED_SIDE)
    tokens = {"max_sequence_length": pipeline.max_sequence_length} if _is_served(pipeline) else {}
    return {
        "prompt": prompt.text,
        **({"negative_prompt": prompt.negative_prompt} if prompt.negative_prompt else {}),
        "n": pipeline.images,
        "size": f"{width}x{height}",
        "num_inference_steps": pipeline.steps,
        "guidance_scale": pipeline.guidance_scale,
        **({"cfg_normalization": False} if pipeline.guidance_scale > 0 else {}),
        **tokens,
        "seed": seed,
        "generator_device": "cpu",
        "output_format": asked_format(trial) or EXACT,
        "response_format": "b64_json",
    }
