"""What is said of an exception in whatever process of a trial it was raised: its code, one line, the stage, the memory.

`failed` events of a worker and of its ranks are made here.
"""

import traceback
from contextlib import suppress
from typing import Any

from zbench.engines import Engine, LostRank, StageError
from zbench.errors import StoreError, WeightsUnavailableError, ZbenchError, machine_fault, one_line, with_causes
from zbench.record import MACHINE

STICKY = (
    "an illegal memory access was encountered",
    "device-side assert triggered",
    "unspecified launch failure",
    "misaligned address",
    "an illegal instruction was encountered",
    "invalid program counter",
    "hardware stack error",
    "operation not supported on global/shared address space",
    "the launch timed out and was terminated",
    "context is destroyed",
)
"""What CUDA says of errors after which every call of the process fails (its runtime API, `cudaError_t`), in its words.

A trial may be to blame for them, so they are no failures of the machine."""


class CodedError(Exception):
    """An error that says its own code, and the whole of what there is to say."""

    code = "error"
    log_tail: tuple[str, ...] = ()
    """The last words of the program that it is about; empty: they are in the worker's own log."""


class RankError(CodedError):
    """A process of an engine of several fails the trial."""

    def __init__(self, lost: LostRank) -> None:
        super().__init__(lost.message)
        self.lost, self.code = lost, lost.code


def failure(error: Exception, stage: str, engine: Engine | None) -> dict[str, Any]:
    """`code`, `message`, `stage` and `memory`, the latter at this moment and only where it ran out.

    The `log_tail` of a RankError is added, and that of another CodedError that has one. The error is printed, with its
    trace.
    """
    with suppress(OSError):  # where there is no room for the log either
        traceback.print_exc()
    if isinstance(error, RankError):
        return error.lost.told(stage)
    cause: BaseException = error
    if isinstance(error, StageError) and error.__cause__ is not None:
        cause, stage = error.__cause__, f"{stage}, {error.stage}"
    ran_out = any(cls.__name__ == "OutOfMemoryError" for cls in type(cause).__mro__)  # torch's, for a device
    memory = _memory_now(engine) if ran_out and engine is not None else None
    tail = {"log_tail": list(cause.log_tail)} if isinstance(cause, CodedError) and cause.log_tail else {}
    return {"code": code_of(cause), "message": _message(cause, stage), "stage": stage, "memory": memory, **tail}


def _memory_now(engine: Engine) -> dict[str, int] | None:
    """What its allocator says, if it has one that still answers: the failure itself is not to be lost."""
    try:
        allocator = engine.watch().allocator
        return None if allocator is None else allocator.now()
    except Exception:
        with suppress(OSError):
            traceback.print_exc()
        return None


def code_of(error: BaseException) -> str:
    """Out of memory is told by type where there is one, and by torch's own words on a CPU, where there is none.

    Of what else an error was raised from, only the machine's failures count: they say more than what followed.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or "DefaultCPUAllocator" in str(error):
        return "out_of_memory"
    if isinstance(error, StoreError) or any(machine_fault(str(each)) for each in with_causes(error)):
        return MACHINE
    if isinstance(error, WeightsUnavailableError):
        return "weights"
    if isinstance(error, CodedError):
        return error.code
    return "config" if isinstance(error, ZbenchError) else "error"


def is_sticky(error: BaseException) -> bool:
    """Whether no later call of this process can use the GPU, whoever is to blame."""
    return any(words in str(each).lower() for each in with_causes(error) for words in STICKY)


def _message(error: BaseException, stage: str) -> str:
    text = one_line(error)
    if isinstance(error, ZbenchError | CodedError):
        return text
    return f"{type(error).__name__} during {stage}: {text}"
