"""What a search of zbench's own takes beyond a grid's points: `search.options`, as a dataclass of that search; and
what it does not take."""

from typing import TypeVar

from zbench.config import SearchConfig
from zbench.decode import typed
from zbench.errors import ConfigError
from zbench.sanitize import without_password

T = TypeVar("T")


def options_of(config: SearchConfig, schema: type[T]) -> T:
    """`search.options` as `schema`, a dataclass whose annotations hold its bounds (`decode.Positive` and the like).

    Raises ConfigError naming the option, its value and what it must be.
    """
    try:
        return typed(schema, dict(config.options))
    except ValueError as error:
        raise ConfigError("search.options", config.options, str(error)) from error


def refuse_storage(config: SearchConfig) -> None:
    """Raise ConfigError for a `search.storage`, of a search that keeps nothing but the journal."""
    if config.storage is not None:
        raise ConfigError(
            "search.storage", without_password(config.storage), "only search=optuna keeps a study elsewhere"
        )
