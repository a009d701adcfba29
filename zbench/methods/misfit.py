"""Why some values of a config cannot work: said by a plan in a sentence, and by an engine as an error of their keys."""

from collections.abc import Mapping
from dataclasses import dataclass

from zbench.errors import ConfigError


@dataclass(frozen=True)
class Misfit:
    """Values by dotted key, and what is wrong with them; of several values the predicate of a sentence."""

    values: Mapping[str, object]
    why: str

    def __str__(self) -> str:
        """`cache.scm_preset=fast: there are …`, or `cache.…=8 + cache.…=3 exceed …`."""
        named = " + ".join(f"{key}={value}" for key, value in self.values.items())
        return f"{named}{':' if len(self.values) == 1 else ''} {self.why}"

    def error(self) -> ConfigError:
        """The same as an error."""
        return ConfigError("+".join(self.values), "+".join(map(str, self.values.values())), self.why)
