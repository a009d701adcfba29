"""What one trial is for a server that zbench starts: its command and environment, and the bodies of its requests.

Example: on SGLang 0.5.23 the trials of a cache grid have one command, and each request says its own cache; on
0.5.15.post1, which ignores that, every cache setting has a command of its own (`SGLANG_CACHE_DIT_*`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zbench.config import CacheConfig, Prompt
from zbench.engines.sglang.launch import SGLangLaunch, request_body, sglang_launch
from zbench.engines.sglang.options import SGLangOptions
from zbench.engines.sglang.versions import Accepted, fitted
from zbench.methods.cache import method_of
from zbench.trial import Trial

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""So that nothing is downloaded unasked."""

UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
"""So that the log's end is what was said last."""

TRUE_STAGES = {"SGLANG_DIFFUSION_SYNC_STAGE_PROFILING": "1"}
"""Times of steps that wait for the GPU, in requests with `perf_dump_path`; without it SGLang's steps do not wait."""

ENABLES, PARAMETERS = "enable_cache_dit", "cache_dit_params"


@dataclass(frozen=True)
class ServerWords:
    """A server for one trial, and for all that share its launch."""

    command: tuple[str, ...]
    environment: dict[str, str]  # beside the user's own
    caches_per_request: bool
    notes: tuple[str, ...]


def server_words(
    trial: Trial, options: SGLangOptions, takes: Accepted, port: int, inner_ports: Mapping[str, int]
) -> ServerWords:
    """The command that serves `trial` at a port, with what the version takes of it.

    `inner_ports` are flags and ports of what its processes tell each other, where `engine.options.flags` names none.
    """
    per_request = caches_per_request(trial, options, takes)
    launch = fitted(launch_of(trial, options, takes), takes)
    words = [*options.program, *launch.arguments[1:]]
    for flag, value in {"--host": options.host, "--port": str(port)}.items():
        words[words.index(flag) + 1] = value
    for flag, inner_port in inner_ports.items():
        words += [flag, str(inner_port)] if takes.takes(flag) and flag not in words else []
    offline = {} if trial.pipeline.download else OFFLINE
    stages = TRUE_STAGES if options.perf_dumps else {}
    environment = {**UNBUFFERED, **offline, **stages, **launch.environment, **dict(options.environment)}
    return ServerWords(tuple(words), environment, per_request, launch.notes)


def launch_of(trial: Trial, options: SGLangOptions, takes: Accepted) -> SGLangLaunch:
    """The words of the trial's launch; without its cache, where requests say that."""
    served = replace(trial, cache=CacheConfig()) if caches_per_request(trial, options, takes) else trial
    launch = sglang_launch(served)
    if options.model_path is None:
        return launch
    words = list(launch.arguments)
    words[words.index("--model-path") + 1] = options.model_path
    return replace(launch, arguments=tuple(words))


def caches_per_request(trial: Trial, options: SGLangOptions, takes: Accepted) -> bool:
    """Whether each request says its cache. Compiled code and graphs hold theirs, so there the launch says it."""
    if options.per_request_cache is not None and not _holds_its_cache(trial):
        return options.per_request_cache
    return requests_take_caches(trial, takes)


def requests_take_caches(trial: Trial, takes: Accepted) -> bool:
    """Whether the version takes a cache from each request, and the trial leaves it the choice."""
    declared = set(takes.request or ())
    return not _holds_its_cache(trial) and {ENABLES, PARAMETERS} <= declared


def cache_fields(trial: Trial) -> dict[str, Any]:
    """The trial's cache as fields of a request."""
    method = method_of(trial.cache)
    return {ENABLES: True, PARAMETERS: method.parameters} if method.skips else {ENABLES: False}


def _holds_its_cache(trial: Trial) -> bool:
    """A mask of one's own has a word at the launch alone."""
    return trial.compute.compile or trial.graphs == "all" or "steps_mask" in method_of(trial.cache).parameters


def body_of(trial: Trial, prompt: Prompt, seed: int, *, per_request: bool) -> dict[str, Any]:
    """One request, with the trial's cache where requests say that."""
    return request_body(trial, prompt, seed) | (cache_fields(trial) if per_request else {})
