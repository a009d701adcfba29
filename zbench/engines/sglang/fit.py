"""Why SGLang, or one version of it, cannot run a trial: what it has no word for is no trial of it."""

import os
from pathlib import Path

from zbench.carried import OWN_NAMES, Words, told, uncarried
from zbench.engines.sglang.degrees import refusal
from zbench.engines.sglang.launch import FULL_SIZE, MOST_IMAGES, of_requests, sglang_launch
from zbench.engines.sglang.options import SGLangOptions
from zbench.engines.sglang.versions import CONSEQUENCES, Accepted, lacking
from zbench.engines.sglang.words import caches_per_request, launch_of
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial, geometry_of
from zbench.zimage.on_disk import names_a_file

ITS_OWN = ("compute.device", "pipeline.weights", "workload.")
"""Settings without a word of SGLang's, or how they begin, that are the client's or are judged here in another way."""

SPARED = ("--strict-ports", "--performance-mode", "--regional-compile", "--warmup-resolutions")
"""Flags that older versions lack and that change no trial there: they have not what these steer."""

NEUTRAL = ("false", "1")
"""Values that ask for nothing: a version that lacks such a flag does just that."""


def why_not(trial: Trial, options: SGLangOptions, takes: Accepted) -> str | None:
    """The first reason, naming key and value, or None."""
    checks = (
        _model(trial, options),
        _settings(trial),
        _sharding(trial),
        _cache(trial, takes),
        _attached(trial, options, takes) if options.attaches else _version(trial, options, takes),
    )
    return next((reason for reason in checks if reason), None)


def _model(trial: Trial, options: SGLangOptions) -> str | None:
    pipeline = trial.pipeline
    if pipeline.name not in FULL_SIZE:
        return f"pipeline={pipeline.name}: SGLang serves {' and '.join(FULL_SIZE)}; use pipeline={FULL_SIZE[0]}"
    if names_a_file(Path(os.path.expanduser(pipeline.weights))):
        return f"pipeline.weights={pipeline.weights}: SGLang serves a folder or a hub id, not the transformer's file"
    if pipeline.weights == "random" and options.model_path is None and not options.attaches:
        return (
            "pipeline.weights=random: SGLang makes none; name a folder that holds some with engine.options.model_path="
        )
    if pipeline.weights != "random" and options.model_path is not None:
        return (
            f"engine.options.model_path={options.model_path} is for a folder of random weights (pipeline.weights="
            f"random); name trained ones with pipeline.weights="
        )
    if pipeline.images > MOST_IMAGES:
        return f"{pipeline.images} images a call: SGLang makes at most {MOST_IMAGES} a request"
    return None


def _settings(trial: Trial) -> str | None:
    """What has no counterpart, or excludes one another in SGLang."""
    for key, value in sglang_launch(trial).uncarried.items():
        if not key.startswith(ITS_OWN):
            return f"{key}={told(value)}: SGLang has no counterpart of it"
    compute = trial.compute
    if compute.graphs == "all" and (compute.compile or method_of(trial.cache).skips):
        other = "compute.compile=true" if compute.compile else "a cache, which it would silently turn off"
        return f"compute.graphs=all: SGLang's breakable CUDA graph excludes {other}"
    return None


def _sharding(trial: Trial) -> str | None:
    dims = ParallelDims.of(trial.parallel)
    why = None if dims.devices == 1 else refusal(dims, geometry_of(trial.pipeline).transformer.n_heads)
    return None if why is None else f"SGLang refuses these degrees: {why}"


def _cache(trial: Trial, takes: Accepted) -> str | None:
    method = method_of(trial.cache)
    if method.skips and method.decider is None and takes.keeps_forced_masks is False:
        return (
            f"cache.scm_policy=static: sglang {takes.version} holds a forced mask for its first request alone, and "
            "then the threshold decides; use cache.scm_policy=dynamic, or a newer SGLang"
        )
    return None


def _version(trial: Trial, options: SGLangOptions, takes: Accepted) -> str | None:
    """A flag or variable that asks for something and that the version lacks."""
    missing = lacking(launch_of(trial, options, takes), takes)
    asked = {n: v for n, v in missing.items() if n not in SPARED and v not in NEUTRAL}
    if not asked:
        return None
    name, value = next(iter(asked.items()))
    return f"sglang {takes.version} has no {name} (asked for: {value}){CONSEQUENCES.get(name, '')}"


def _attached(trial: Trial, options: SGLangOptions, takes: Accepted) -> str | None:
    """What only a launch could decide, where somebody else launched."""
    words = Words("SGLang", (*of_requests(trial).carries, *OWN_NAMES), {"pipeline.weights": ("auto", "random")})
    for key, value in uncarried(trial, words).items():
        if not key.startswith(("compute.device", "workload.", "cache.")):
            return (
                f"{key}={told(value)}: how the server at engine.base_url was started is not zbench's to say; leave "
                "that to it, or leave base_url out, so that zbench starts one"
            )
    if method_of(trial.cache).skips and not caches_per_request(trial, options, takes):
        return (
            f"cache={method_of(trial.cache).label}: the server at engine.base_url can be told by requests alone; say "
            "engine.options.per_request_cache=true where it takes enable_cache_dit, or its engine.options.version"
        )
    return None
