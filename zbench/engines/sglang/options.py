"""What the engine `sglang` may be told, checked: each fault names its key, the value and the way out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zbench.config.ranges import shortened
from zbench.config.secrets import SECRET
from zbench.engines.formats import check_format
from zbench.engines.sglang.launch import HOST
from zbench.engines.sglang.versions import INSTALLED, PROGRAM
from zbench.errors import ConfigError

READY_S, REQUEST_S = 480.0, 600.0
AUTO = "auto"
LONGEST_S = 86_400.0

OF_CACHES = "SGLANG_CACHE_DIT_"
"""How variables begin that would overrule a trial's cache."""

DEVICES = "CUDA_VISIBLE_DEVICES"
"""Gauges watch the devices that zbench sees, so the server must see the same."""

OF_A_LAUNCH: dict[str, Any] = {
    **{"program": " ".join(PROGRAM), "environment": {}, "flags": {}},
    **{"host": HOST, "port": 0, "model_path": None},
}
"""What nobody reads of where somebody else started the server, unless it is this."""

FLAG = re.compile(r"[a-z][a-z0-9.-]*")
MOVING = ("base-gpu-id", "gpu-ids")
"""Flags that would put the server on other devices than those that are watched."""

OWN_FLAGS = ("host", "port", "strict-ports", "model-path")
"""Flags that other keys decide."""


@dataclass(frozen=True)
class SGLangOptions:
    """See `SGLangEngine`, whose arguments these are."""

    base_url: str | None = None
    program: tuple[str, ...] = PROGRAM
    environment: tuple[tuple[str, str], ...] = ()
    version: str = INSTALLED
    host: str = HOST
    port: int = 0
    ready_timeout_s: float = READY_S
    request_timeout_s: float = REQUEST_S
    per_request_cache: bool | None = None  # None: where the version takes it
    model_path: str | None = None
    perf_dumps: bool = True
    key_env: str | None = None

    @property
    def attaches(self) -> bool:
        """Whether somebody else started the server."""
        return self.base_url is not None


def checked(given: Mapping[str, Any]) -> SGLangOptions:
    """The options as they were given. Raises ConfigError."""
    said = dict(given)
    program = said["program"]
    words = [program] if isinstance(program, str) else program
    if not isinstance(words, Sequence) or not words or not all(isinstance(w, str) and w for w in words):
        raise _fault("program", program, "must be a list of words, such as [sglang] or [python,/opt/sglang/bin/sglang]")
    _check_flags(said.pop("flags"))
    if not isinstance(said["version"], str):
        raise _fault("version", said["version"], f"must be {INSTALLED}, or a version such as 0.5.23")
    if not isinstance(said["host"], str) or not said["host"]:
        raise _fault("host", said["host"], f"must be an address, such as {HOST}")
    port = said["port"]
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 65536:
        raise _fault("port", port, "must be 0 (a free one) to 65535")
    for name in ("ready_timeout_s", "request_timeout_s"):
        value = said[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_S:
            raise _fault(name, value, f"must be above 0 and at most {LONGEST_S:g} seconds")
    if said["per_request_cache"] != AUTO and not isinstance(said["per_request_cache"], bool):
        raise _fault("per_request_cache", said["per_request_cache"], "must be auto, true or false")
    check_format(said.pop("output_format", None))
    if not isinstance(said["perf_dumps"], bool):
        raise _fault("perf_dumps", said["perf_dumps"], "must be true or false")
    for name, what in {"model_path": "a folder", "key_env": "the name of a variable"}.items():
        if said[name] is not None and (not isinstance(said[name], str) or not said[name]):
            raise _fault(name, said[name], f"must be {what}, or null")
    if said["base_url"] is not None:
        _check_attached({**given, "program": " ".join(words)})
    if said["key_env"] is not None and said["base_url"] is None:
        raise _fault("key_env", said["key_env"], "is for a server that is there (engine.base_url); leave it out")
    return SGLangOptions(
        **{
            **said,
            "base_url": None if said["base_url"] is None else _address(said["base_url"]),
            "program": tuple(words),
            "environment": _variables(said["environment"]),
            "per_request_cache": None if said["per_request_cache"] == AUTO else said["per_request_cache"],
        }
    )


def _check_attached(given: Mapping[str, Any]) -> None:
    if given["program"] not in (PROGRAM, list(PROGRAM), *PROGRAM):
        raise _fault(
            "program", given["program"], "is for a server that zbench starts; leave it out, or engine.base_url"
        )
    for name, usual in OF_A_LAUNCH.items():
        if given[name] != usual:
            shown = ", ".join(given[name]) if isinstance(given[name], Mapping) else given[name]
            raise _fault(name, shown, "is for a server that zbench starts; leave it out, or engine.base_url")


def _address(base_url: Any) -> str:
    from zbench.engines.images_client import server_url

    return server_url(base_url if isinstance(base_url, str) else str(base_url))


def _variables(given: Any) -> tuple[tuple[str, str], ...]:
    """Those of the server's environment; what is secret is inherited and never named in a config."""
    if not isinstance(given, Mapping):
        raise _fault("environment", given, "must be names and values, such as {PYTHONPATH:/opt/sglang}")
    for name, value in given.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise _fault("environment", name, "is no name of a variable")
        if SECRET.search(name):
            way = f"set {name} where zbench is started: the server inherits it, and no record holds its value"
            raise ConfigError(f"engine.options.environment.{name}", "…", way)
        if name.startswith(OF_CACHES):
            raise _fault(f"environment.{name}", value, "is what the trial's cache says; choose that with cache=")
        if name == DEVICES:
            raise _fault(f"environment.{name}", value, "would move the server alone; set it where zbench is started")
        if not isinstance(value, str | int | float) or "\0" in str(value):
            raise _fault(f"environment.{name}", value, "must be a text or a number")
    return tuple((name, _text(value)) for name, value in given.items())


def _check_flags(given: Any) -> None:
    if not isinstance(given, Mapping):
        raise _fault("flags", given, "must be flags without dashes and their values, such as {quantization:fp8}")
    for name, value in given.items():
        if not isinstance(name, str) or not FLAG.fullmatch(name):
            raise _fault("flags", name, "is no flag; write it without its dashes, such as warmup-mode")
        if SECRET.search(name):
            way = "is a key or a password, which a record would hold; give it to SGLang in another way"
            raise ConfigError(f"engine.options.flags.{name}", "…", way)
        if name in OWN_FLAGS:
            ways = {"model-path": "pipeline.weights or engine.options.model_path", "strict-ports": "nothing: it is on"}
            raise _fault(f"flags.{name}", value, f"is set by {ways.get(name, f'engine.options.{name}')}")
        if name in MOVING:
            way = f"would move the server alone, and others' devices be watched; set {DEVICES} where zbench is started"
            raise _fault(f"flags.{name}", value, way)
        if not isinstance(value, str | int | float) or value == "" or str(value).startswith("--"):
            raise _fault(f"flags.{name}", value, "must be a text, a number, true or false")


def _text(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fault(name: str, value: Any, problem: str) -> ConfigError:
    return ConfigError(f"engine.options.{name}", shortened(str(value)), problem)
