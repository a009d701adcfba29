"""SGLang as an engine: what a trial is in its words, and what it can run. Imports neither torch nor SGLang.

The engine itself is `engine.SGLang`, which `SGLangEngine.engine` imports and makes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from zbench.engines import Engine, Residency, residency_by_keys
from zbench.engines.programs.surroundings import users_own
from zbench.engines.sglang.fit import why_not
from zbench.engines.sglang.launch import HOST
from zbench.engines.sglang.options import AUTO, READY_S, REQUEST_S, checked
from zbench.engines.sglang.versions import INSTALLED, PROGRAM, Accepted, accepted
from zbench.engines.sglang.words import caches_per_request
from zbench.trial import Trial

PER_REQUEST = ("workload", "pipeline.steps")
"""What any request says; where the version takes it, also the cache. Size, images and guidance are of the process: what
torch keeps of a larger image's memory would count as the next trial's."""

LAUNCH_S, COMPILED_LAUNCH_S = 70.0, 100.0
"""Seconds of a launch until its first image, as they were on an H100 with 0.5.15.post1: 50 to 80, compiled 90."""


class SGLangEngine:
    """See `zbench.engines.EngineDescription`."""

    def __init__(
        self,
        base_url: str | None = None,
        program: str | Sequence[str] = PROGRAM,
        environment: Mapping[str, Any] | None = None,
        flags: Mapping[str, Any] | None = None,
        version: str = INSTALLED,
        host: str = HOST,
        port: int = 0,
        ready_timeout_s: float = READY_S,
        request_timeout_s: float = REQUEST_S,
        per_request_cache: str | bool = AUTO,
        model_path: str | None = None,
        perf_dumps: bool = True,
        key_env: str | None = None,
        output_format: str | None = None,
    ) -> None:
        """`base_url` is a server that is there, its key in the variable `key_env`; else `program` is started.

        It has `environment` and `flags` besides. `version` decides what it takes: `installed` asks the program, else a
        row of the table. `port` 0 is a free one. `per_request_cache` says whether requests say the cache, or a launch
        does; auto: where the version takes it. `model_path` is a folder of random weights. `perf_dumps`: untimed
        requests tell of stages and steps. `output_format` is read from each request's trial. Raises ConfigError.
        """
        given = {name: value for name, value in locals().items() if name != "self"}
        self._options = checked(given | {"environment": environment or {}, "flags": flags or {}})

    def supports(self, trial: Trial) -> str | None:
        """What SGLang, and this version of it, has words for. Raises ConfigError for a version that nobody knows."""
        return why_not(trial, self._options, self._takes())

    def residency(self, trial: Trial) -> Residency:
        """One launch serves any steps, prompts and seeds, and any cache where requests say it."""
        per_request = caches_per_request(trial, self._options, self._takes())
        return residency_by_keys(trial, (*PER_REQUEST, *(("cache",) if per_request else ())))

    def resizes(self, trial: Trial) -> bool:
        """Each request says its size; code that was compiled, and graphs, are for one."""
        return not (trial.compute.compile or trial.graphs == "all")

    def launch_s(self, trial: Trial) -> float:
        """Seconds that a launch is expected to take, before any was measured."""
        return 0.0 if self._options.attaches else COMPILED_LAUNCH_S if trial.compute.compile else LAUNCH_S

    def engine(self) -> Engine:
        """Imports an HTTP client."""
        from zbench.engines.sglang.engine import SGLang

        return SGLang(self._options, self._takes())

    def _takes(self) -> Accepted:
        options = self._options
        if options.attaches and options.version == INSTALLED:
            return Accepted("", frozenset())
        return accepted(
            options.version,
            key="engine.options.version",
            program=options.program,
            environment=users_own() | dict(options.environment),
        )
