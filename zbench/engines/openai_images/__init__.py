"""Any server with OpenAI's images endpoint, as a sweep sees it; the server is there already and nobody starts it here.

What a request cannot carry is refused by `supports`, with its key and value: the server decides it. The engine itself
is `served.ServedImages`.
"""

from typing import Any

from zbench.engines import Engine, Residency, residency_by_keys
from zbench.engines.formats import check_format
from zbench.engines.images_client import key_in, server_url
from zbench.engines.openai_images.dialects import DIALECTS, problem_of
from zbench.errors import ConfigError
from zbench.trial import Trial

KEY_ENV = "OPENAI_API_KEY"
TIMEOUT_S = 600.0
READY_S = 60.0

OWN_OPTIONS = ("model", "output_format")
"""Fields of a request that are options of the engine."""

PER_REQUEST = ("cache", "workload", "pipeline")
"""What travels with each request, so that one server serves a whole grid."""


class ImagesEngine:
    """See `zbench.engines.EngineDescription`."""

    def __init__(
        self,
        base_url: str | None = None,
        dialect: str = "sglang",
        model: str | None = None,
        key_env: str = KEY_ENV,
        timeout_s: float = TIMEOUT_S,
        ready_s: float = READY_S,
        fields: dict[str, Any] | None = None,
        output_format: str | None = None,
    ) -> None:
        """`fields` are sent with every request as they are; one that is null is left out. Times are seconds.

        Of `output_format` requests read what their trial says. Raises ConfigError for what cannot be. `ready_s` is how
        long a server that does not answer yet is waited for.
        """
        if base_url is None:
            way = "such as engine.base_url=http://127.0.0.1:30000 (zbench serve prints its own)"
            raise ConfigError("engine.base_url", "null", f"give the server's address, {way}")
        if dialect not in DIALECTS:
            raise ConfigError("engine.options.dialect", dialect, f"must be one of {', '.join(DIALECTS)}")
        _check_text("model", model, optional=True)
        _check_text("key_env", key_env)
        check_format(output_format)
        self._base_url = server_url(base_url)
        self._dialect = DIALECTS[dialect]
        key_in(key_env)  # one that cannot be sent is better known now
        self._model, self._key_env = model, key_env
        self._timeout_s, self._ready_s = _seconds("timeout_s", timeout_s), _seconds("ready_s", ready_s)
        self._fields = _checked(fields or {}, self._dialect.sets)

    def supports(self, trial: Trial) -> str | None:
        """What no request of the dialect can carry, and what the server alone decides."""
        return problem_of(trial, self._dialect)

    def residency(self, trial: Trial) -> Residency:
        """All that requests carry may change from one to the next."""
        return residency_by_keys(trial, PER_REQUEST)

    def resizes(self, trial: Trial) -> bool:
        """Each request has its size, and its steps where the dialect carries them."""
        return "pipeline.steps" in self._dialect.carries or not any("steps" in p.own for p in trial.workload.prompts)

    def engine(self) -> Engine:
        """Imports an HTTP client."""
        from zbench.engines.images_client import ImagesClient
        from zbench.engines.openai_images.served import ServedImages

        client = ImagesClient(self._base_url, key_env=self._key_env, timeout_s=self._timeout_s)
        return ServedImages(client, self._dialect, model=self._model, fields=self._fields, ready_s=self._ready_s)


def _check_text(name: str, value: object, *, optional: bool = False) -> None:
    if not (optional and value is None) and not (isinstance(value, str) and value.strip()):
        raise ConfigError(f"engine.options.{name}", repr(value), "must be a name")


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86_400:
        raise ConfigError(f"engine.options.{name}", value, "must be above 0 and at most 86400 seconds")
    return float(value)


def _checked(fields: object, sets: frozenset[str]) -> dict[str, Any]:
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ConfigError("engine.options.fields", "…", "must be a dictionary, such as {quality:low}")
    for name in sets.intersection(fields):
        own = name if name in OWN_OPTIONS else OWN_OPTIONS[0]
        way = f"is the trial's to set; say it by pipeline, cache, workload or engine.options.{own}"
        raise ConfigError(f"engine.options.fields.{name}", "…", way)
    return fields
