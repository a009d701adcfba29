"""The errors a user can meet, each one line that names the key, the value and the way out.

Everything raised on purpose derives from `ZbenchError` and carries its exit code; anything else
that reaches the command line is a fault of zbench itself (exit 70).
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command; `meaning` is what `zbench --help` says of each."""

    meaning: str

    DONE = 0, "done"
    REGRESSION = 1, "a regression"
    BAD_INPUT = 2, "bad input"
    INCONCLUSIVE = 3, "inconclusive"
    FAILED = 4, "failed trials or nothing feasible"
    FAULT = 70, "a fault of zbench"
    INTERRUPTED = 130, "interrupted"

    def __new__(cls, code: int, meaning: str) -> "Exit":
        """A code with its meaning beside it."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


class ZbenchError(Exception):
    """A condition that the user can mend."""

    exit_code: Exit = Exit.BAD_INPUT

    def __str__(self) -> str:
        """One line, whatever was typed."""
        return super().__str__().replace("\r", "\\r").replace("\n", "\\n")


class ConfigError(ZbenchError):
    """A config value that cannot be used."""

    def __init__(self, key: str, value: object, problem: str) -> None:
        """`key` is the dotted config key, `problem` says what is wrong and what to do instead."""
        super().__init__(f"{key}={value}: {problem}")
        self.key = key


class OverrideError(ZbenchError):
    """A command line that does not parse or does not compose."""


class RecordError(ZbenchError):
    """A record file that cannot be read, or is not one of zbench's."""


class StoreError(ZbenchError):
    """A run folder that cannot be used: unwritable, missing, or held by another sweep."""


class WeightsUnavailableError(ZbenchError):
    """Weights that are missing, corrupt or not on this machine."""


class HardwareError(ZbenchError):
    """Hardware that was asked for and is not here."""


class NothingFeasibleError(ZbenchError):
    """No trial satisfies every constraint."""

    exit_code = Exit.FAILED
