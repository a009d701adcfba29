"""What `executor=ray` takes."""

from dataclasses import dataclass
from typing import Any

from zbench.config.ranges import number, shortened
from zbench.config.secrets import SECRET
from zbench.config.sweep import ExecutorConfig
from zbench.errors import ConfigError

RUNTIME_ENV = "runtime_env"
VARIABLES = "env_vars"
"""In Ray's runtime_env, those of its workers."""


@dataclass
class RayExecutorConfig(ExecutorConfig):
    """Where trials run: on the nodes of a Ray cluster."""

    address: str = "auto"  # as ray.init takes it: auto, HOST:PORT, or local for a cluster of this machine alone
    accelerator: str | None = None  # only on nodes that have GPUs of this type, as Ray calls it, such as H100
    num_cpus: int = number(1, 0, 4096)  # cores that Ray sets aside for a worker


def check_ray(executor: ExecutorConfig) -> None:
    """Raise ConfigError for options that nobody would read, and for a secret among them."""
    if not isinstance(executor, RayExecutorConfig):
        return
    for name in executor.options:
        if name != RUNTIME_ENV:
            raise ConfigError("executor.options", shortened(name), f"executor=ray takes {RUNTIME_ENV} alone")
    wanted = executor.options.get(RUNTIME_ENV)
    if wanted is None:
        return
    key = f"executor.options.{RUNTIME_ENV}"
    if not isinstance(wanted, dict):
        raise ConfigError(key, shortened(str(wanted)), "must be a dictionary, such as {env_vars:{HF_HOME:/shared/hf}}")
    _check_variables(f"{key}.{VARIABLES}", wanted.get(VARIABLES) or {})


def _check_variables(key: str, given: Any) -> None:
    if not isinstance(given, dict):
        raise ConfigError(key, shortened(str(given)), "must be names and values, such as {HF_HOME:/shared/hf}")
    for name, value in given.items():
        if SECRET.search(str(name)):
            way = f"start Ray on the nodes with {name} set: workers inherit it, and no record holds its value"
            raise ConfigError(f"{key}.{name}", "…", way)
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(
                f"{key}.{name}", shortened(str(value)), "must be text; a number takes quotes, such as '1'"
            )
