"""What a request of each kind of server can hold: its body, and which settings of a trial that carries.

Nothing that a body can carry is left to the server's default: without a cache a request says that there is none. Fields
are those of SGLang 0.5.23 and `zbench serve`, of vLLM-Omni (`ImageGenerationRequest`, read in its repository), and of
OpenAI's own endpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zbench.carried import OWN_NAMES, Words, told, uncarried
from zbench.engines.formats import EXACT, asked_format
from zbench.methods.cache import method_of
from zbench.trial import Trial

MOST_IMAGES = 10
"""Of one request, as OpenAI has it."""

OWN_WEIGHTS = ("auto", "random")
"""`random` says that the server's weights are, so that its images are not judged."""

NAMES = (*OWN_NAMES, "compute.device")
SIZED = ("pipeline.height", "pipeline.width", "pipeline.batch_size", "pipeline.images_per_prompt")
PLAIN = {"pipeline.weights": OWN_WEIGHTS, "pipeline.max_sequence_length": (512, 128), "compute.dtype": ("auto",)}
"""Values that ask for nothing: what presets have by themselves."""


@dataclass(frozen=True)
class Dialect:
    """Which fields a server takes besides `prompt`, `n`, `size`, `response_format` and `model`."""

    name: str
    carries: tuple[str, ...]
    """Settings of a trial that its fields carry, beside sizes."""
    caches: bool
    """Whether a request may name its own cache."""
    own: Callable[[Trial, int, str], dict[str, Any]]
    """Its own fields, from a trial, a seed and a negative prompt."""
    sets: frozenset[str]
    """Fields that the trial decides, so that nobody else may."""

    def body(self, trial: Trial, prompt: str, seed: int, negative: str) -> dict[str, Any]:
        """One request; image k of it has the seed `seed + k`."""
        pipeline = trial.pipeline
        return {
            "prompt": prompt,
            "n": pipeline.images,
            "size": f"{pipeline.width}x{pipeline.height}",
            "response_format": "b64_json",
            **self.own(trial, seed, negative),
        }

    @property
    def left_open(self) -> str | None:
        """What decides the images and its requests cannot say; None where there is no such thing."""
        lacking = [name for key, name in DECISIVE.items() if key not in self.carries]
        if not lacking:
            return None
        return f"{', '.join(lacking)} are the server's own: requests of engine.options.dialect={self.name} carry none"


DECISIVE = {"pipeline.steps": "steps", "pipeline.guidance_scale": "guidance", "workload.seeds": "seeds"}
COMMON = frozenset({"prompt", "n", "size", "model", "output_format"})
DIFFUSION = frozenset({"seed", "num_inference_steps", "guidance_scale", "negative_prompt"})
CACHING = frozenset({"enable_cache_dit", "cache_dit_params"})
STEPPED = ("pipeline.steps", "pipeline.guidance_scale", "workload.seeds", "workload.prompts.negative_prompt")


def _diffusion(trial: Trial, seed: int, negative: str) -> dict[str, Any]:
    """Noise is drawn on the CPU, as zbench's own pipeline draws it: a GPU's generator gives another image."""
    return {
        **({"negative_prompt": negative} if negative else {}),
        "seed": seed,
        "num_inference_steps": trial.pipeline.steps,
        "guidance_scale": trial.pipeline.guidance_scale,
        "generator_device": "cpu",
        "output_format": asked_format(trial) or EXACT,
    }


def _openai(trial: Trial, seed: int, negative: str) -> dict[str, Any]:
    """Not every model of OpenAI's own takes a format, so none is named unless it is asked for."""
    asked = asked_format(trial)
    return {} if asked is None else {"output_format": asked}


def _sglang(trial: Trial, seed: int, negative: str) -> dict[str, Any]:
    """With guidance SGLang normalises by default, which diffusers does not."""
    method = method_of(trial.cache)
    guided = {"cfg_normalization": False} if trial.pipeline.guidance_scale > 0 else {}
    cache: dict[str, Any] = {"enable_cache_dit": method.skips}
    if method.skips:
        cache["cache_dit_params"] = method.parameters
    return {**_diffusion(trial, seed, negative), **guided, **cache}


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("sglang", STEPPED, True, _sglang, COMMON | DIFFUSION | CACHING),
        Dialect("vllm_omni", STEPPED, False, _diffusion, COMMON | DIFFUSION),
        Dialect("openai", (), False, _openai, COMMON),
    )
}


def problem_of(trial: Trial, dialect: Dialect) -> str | None:
    """Why no request of `dialect` can carry what `trial` asks for, naming key and value; None where one can."""
    method = trial.cache.method
    if method_of(trial.cache).target is not None:
        return f"cache.method={method}: a server runs no class of yours; use one of its own methods"
    if method != "none" and not dialect.caches:
        which = f"requests of engine.options.dialect={dialect.name} carry no cache"
        return f"cache.method={method}: {which}; start the server with it, and use cache=none here"
    if trial.pipeline.images > MOST_IMAGES:
        each = f"pipeline.batch_size={trial.pipeline.batch_size}"
        return f"{each} times pipeline.images_per_prompt: a request makes at most {MOST_IMAGES} images"
    negative = [prompt for prompt in trial.workload.prompts if prompt.negative_prompt]
    if negative and "workload.prompts.negative_prompt" not in dialect.carries:
        which = f"requests of engine.options.dialect={dialect.name} carry none"
        return f"workload.negative_prompt={told(negative[0].negative_prompt)}: {which}; leave it out"
    words = Words(dialect.name, (*dialect.carries, *SIZED, *NAMES), PLAIN)
    for key, value in uncarried(trial, words).items():
        if not key.startswith(("workload.", "cache.")):
            return f"{key}={told(value)}: no request can change it; start the server with it, and leave it out here"
    return None
