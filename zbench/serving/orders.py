"""What a request means to the loaded pipeline: the trial it is configured for, prompt, seed and number of images.

One server holds what `Residency.process` of its trial names. A request may change what `Residency.request` names (cache
and steps), and the size where the engine says so, up to as many pixels as the trial has: those were seen to fit.
"""

import math
import secrets
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from zbench.config import CacheConfig, DBCacheConfig, PipelineConfig, ServedEngineConfig, check
from zbench.config.pipeline import PIXEL_GRID, SEED_LIMIT
from zbench.config.ranges import check_text
from zbench.engines import Batching, EngineDescription, Resizing, process_of
from zbench.errors import ConfigError, ZbenchError
from zbench.methods.cache import method_of
from zbench.methods.cache.given import PARAMETERS, with_parameters
from zbench.serving.protocol import GenerationBody, check_form, shown, size_of
from zbench.serving.refusal import RequestRefused
from zbench.space import constraint
from zbench.trial import Trial, geometry_of, group_of

DRAWN_SEEDS = 2**31
"""A seed that nobody gave is drawn below it, so that any client can send it back."""

PARAMS = {
    "pipeline.steps": "num_inference_steps",
    "pipeline.height": "size",
    "pipeline.width": "size",
    "workload.seeds": "seed",
    "cache": "cache_dit_params",
}
"""A trial's keys, and the request's fields that set them; the longest beginning counts."""


def check_servable(trial: Trial) -> None:
    """Raise ConfigError for a trial of another server, and for one whose calls make several images: an engine hands
    out the first alone."""
    if isinstance(trial.engine, ServedEngineConfig):
        problem = "is a server's client, and zbench serve holds a pipeline of its own process; leave engine out"
        raise ConfigError("engine", trial.engine.name, problem)
    several = {
        "pipeline.batch_size": trial.pipeline.batch_size,
        "pipeline.images_per_prompt": trial.pipeline.images_per_prompt,
        "parallel.dp_size": trial.parallel.dp_size,
    }
    for key, value in several.items():
        if value != 1:
            raise ConfigError(key, value, "a served call makes one image; leave it out, requests ask for more by n")


@dataclass(frozen=True)
class CallSharing:
    """How many images may be made in one call, of this request and of others that came meanwhile."""

    max_size: int = 1
    delay_s: float = 0.0  # how long a call that is not full waits for more


ALONE = CallSharing()


@dataclass(frozen=True)
class Order:
    """What is to be painted, in which form."""

    trial: Trial
    prompt: str
    negative_prompt: str
    seed: int  # of the first image; those of the others follow
    n: int
    output_format: str = "png"
    quality: int | None = None  # of jpeg and webp
    batching: CallSharing = ALONE

    def shares_call(self, other: "Order") -> bool:
        """Whether one call can make the images of both: all but prompts, seeds and the form of the answer is equal."""
        return self.batching == other.batching and self.trial == other.trial


class Menu:
    """What the server of one trial can be asked for."""

    def __init__(
        self,
        trial: Trial,
        description: EngineDescription,
        names: tuple[str, ...] = (),
        batching: CallSharing = ALONE,
    ) -> None:
        """`names` are further names that requests may call the model by; `batching` is what they may ask for at most.

        Raises ZbenchError where the engine makes one request's images at a time.
        """
        if batching.max_size > 1 and (problem := _batching_problem(trial, description)) is not None:
            raise ZbenchError(f"--batching-max-size {batching.max_size}: {problem}; leave it out")
        self.trial, self.description, self.batching = trial, description, batching
        pipeline = trial.pipeline
        self.model = names[0] if names else pipeline.name
        folder = None if pipeline.weights in ("auto", "random") else pipeline.weights
        known = (*names, pipeline.name, pipeline.hub_id, folder, None if folder is None else PurePath(folder).name)
        self.models = tuple(dict.fromkeys(filter(None, (*known, "default"))))

    def order(self, body: GenerationBody) -> Order:
        """What `body` asks for. Raises RequestRefused that names the field and the way out."""
        check_form(body)
        self._check_model(body.model)
        seed = secrets.randbelow(DRAWN_SEEDS) if body.seed is None else body.seed
        n = body.n or 1
        if seed + n > SEED_LIMIT:
            message = f"seed={seed}: the {n} images have seeds that follow it, and they end at {SEED_LIMIT - 1}"
            raise RequestRefused(400, message, param="seed", code="invalid_value")
        negative = body.negative_prompt or ""
        self._check_texts(body.prompt, negative)
        trial = self._trial(body)
        form = body.output_format or "png"
        return Order(trial, body.prompt, negative, seed, n, form, body.output_compression, self._batching(body, trial))

    def own_order(self, n: int = 1) -> Order:
        """The server's own request: `n` images of the trial's first prompt from its first seed, in one call."""
        workload = self.trial.workload
        prompt = workload.prompts[0]
        seed = min(workload.seeds[0], SEED_LIMIT - n)
        return Order(self.trial, prompt.text, prompt.negative_prompt, seed, n, batching=CallSharing(n))

    def _batching(self, body: GenerationBody, trial: Trial) -> CallSharing:
        """The server's own, or less where that is asked for; none where what is computed decides what is skipped."""
        own, size, delay_ms = self.batching, body.batching_max_size, body.batching_delay_ms
        asked = {"batching_max_size": (size, own.max_size), "batching_delay_ms": (delay_ms, own.delay_s * 1000)}
        for name, (value, most) in asked.items():
            if value is not None and value > most:
                flag = f"--{name.replace('_', '-')}"
                message = f"{name}={value:g}: this server was started with {flag} {most:g}; start one with more"
                raise RequestRefused(400, message, param=name, code="unsupported_value")
        if method_of(trial.cache).decider is not None:
            return ALONE
        max_size = own.max_size if size is None else size
        delay_s = own.delay_s if delay_ms is None else delay_ms / 1000
        return CallSharing(max_size, delay_s if max_size > 1 else 0.0)

    def _check_model(self, model: str | None) -> None:
        if model is not None and model not in self.models:
            message = f"model={model[:60]}: this server has {', '.join(self.models[:-1])}; leave model out"
            raise RequestRefused(404, message, param="model", code="model_not_found")

    def _check_texts(self, prompt: str, negative: str) -> None:
        for name, text in (("prompt", prompt), ("negative_prompt", negative)):
            try:
                check_text(name, text)
            except ConfigError as error:
                raise RequestRefused(400, str(error), param=name, code="invalid_value") from error
        if not prompt.strip():
            raise RequestRefused(400, "prompt: is empty; say what to paint", param="prompt", code="invalid_value")
        if negative and self.trial.pipeline.guidance_scale == 0:
            message = (
                "negative_prompt: without guidance it changes nothing; start the server with pipeline.guidance_scale "
                "above 0, or leave it out"
            )
            raise RequestRefused(400, message, param="negative_prompt", code="unsupported_value")

    def _trial(self, body: GenerationBody) -> Trial:
        """The trial that a request asks for, which the loaded pipeline can be configured for."""
        own = self.trial.pipeline
        if body.guidance_scale is not None and body.guidance_scale != own.guidance_scale:
            message = (
                f"guidance_scale={body.guidance_scale:g}: this server was started with {own.guidance_scale:g}; start "
                f"one with pipeline.guidance_scale={body.guidance_scale:g}, or leave it out"
            )
            raise RequestRefused(400, message, param="guidance_scale", code="unsupported_value")
        try:
            pipeline = replace(self._sized(body), steps=body.num_inference_steps or own.steps)
            trial = replace(self.trial, pipeline=pipeline, cache=self._cache(body))
            check(trial)
            problem = constraint(trial, geometry_of(pipeline)) or self.description.supports(trial)
        except ConfigError as error:
            raise RequestRefused(400, str(error), param=param_of(error.key), code="invalid_value") from error
        except ZbenchError as error:
            raise RequestRefused(400, str(error), code="invalid_value") from error
        if problem is not None:
            raise RequestRefused(400, problem, param=param_of(problem), code="unsupported_value")
        same_size = replace(trial, pipeline=replace(pipeline, height=own.height, width=own.width))
        if process_of(self.description, same_size) != process_of(self.description, self.trial):
            message = "the pipeline that this server has loaded cannot be set so; start one with these values"
            raise RequestRefused(400, message, param="cache_dit_params", code="unsupported_value")
        return trial

    def _sized(self, body: GenerationBody) -> PipelineConfig:
        own = self.trial.pipeline
        width, height = size_of(body) or (own.width, own.height)
        if (width, height) == (own.width, own.height):
            return own
        says = self.description
        if not isinstance(says, Resizing) or not says.resizes(self.trial):
            raise self._other_size(width, height, f"this server makes {own.width}x{own.height} alone")
        if width * height > own.width * own.height:
            raise self._other_size(width, height, f"this server makes no more pixels than {own.width}x{own.height}")
        if width % PIXEL_GRID or height % PIXEL_GRID or not width or not height:
            message = f"size={width}x{height}: sides are positive multiples of {PIXEL_GRID} pixels"
            raise RequestRefused(400, message, param="size", code="invalid_value")
        return replace(own, width=width, height=height)

    def _other_size(self, width: int, height: int, why: str) -> RequestRefused:
        way = f"start one with pipeline.width={width} pipeline.height={height}"
        return RequestRefused(400, f"size={width}x{height}: {why}; {way}", param="size", code="unsupported_value")

    def _cache(self, body: GenerationBody) -> CacheConfig:
        """`enable_cache_dit` and `cache_dit_params` over the server's own cache, as SGLang has it."""
        own, params = self.trial.cache, body.cache_dit_params or {}
        if body.enable_cache_dit is False:
            if params:
                message = "cache_dit_params: with enable_cache_dit=false they mean nothing; leave one of them out"
                raise RequestRefused(400, message, param="cache_dit_params", code="invalid_value")
            return CacheConfig()
        if not params:
            skips = own.method != "none"
            return own if skips or body.enable_cache_dit is None else DBCacheConfig()
        return _dbcache(own, params)


def _batching_problem(trial: Trial, description: EngineDescription) -> str | None:
    if isinstance(description, Batching):
        return description.batching_problem(trial)
    return f"engine={trial.engine.name} makes one request's images at a time"


def _dbcache(own: CacheConfig, params: dict[str, Any]) -> CacheConfig:
    """DBCache or a step mask with `params` in place of its own values. Raises RequestRefused for a key that is none."""
    unknown = sorted(set(params) - set(PARAMETERS))
    if unknown:
        message = f"cache_dit_params.{unknown[0][:60]}: no such parameter; there are: {', '.join(PARAMETERS)}"
        raise RequestRefused(400, message, param="cache_dit_params", code="unknown_parameter")
    for name, value in params.items():
        if isinstance(value, float) and not math.isfinite(value):
            message = f"cache_dit_params.{name}={shown(value)}: input should be a finite number"
            raise RequestRefused(400, message, param="cache_dit_params", code="invalid_value")
    kind, values = with_parameters(own, params)
    try:
        return group_of(kind, values, "cache_dit_params")
    except ValueError as error:
        raise RequestRefused(400, str(error), param="cache_dit_params", code="invalid_value") from error


def param_of(key: str) -> str | None:
    """The request's field that sets a trial's key; None where no field does."""
    return next((param for beginning, param in PARAMS.items() if key.startswith(beginning)), None)
