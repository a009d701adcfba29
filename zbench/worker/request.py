"""One request to an engine, and what a window knows of it; it decides nothing about the next."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from zbench.engines import Engine, Generation, StageError
from zbench.engines.failure import code_of
from zbench.measurement import Request, Role
from zbench.quality.validity import image_faults
from zbench.workload import Pair


@dataclass(frozen=True)
class Turn:
    """A request's place in its window, and whose it is."""

    index: int
    trial_id: str
    role: Role = "trial"


def spoilt_by(made: Generation) -> list[str]:
    """Why images of a call are none: what its engine says, and what can be seen of the first of them."""
    return list(dict.fromkeys([*made.invalid_reasons, *image_faults([made.image], made.latents)]))


@dataclass(frozen=True)
class Times:
    """Of one request: seconds after its window's start, and `latency_s` from sent to done."""

    due_s: float
    sent_s: float
    begun_s: float | None
    done_s: float
    latency_s: float


def times_of(made: Generation, sent_s: float, done_s: float, due_s: float | None = None) -> Times:
    """Of a call between `sent_s` and `done_s`, due when it was sent unless that is given.

    A served one was done when its reply was there; nobody knows when its server began.
    """
    begun_s: float | None = sent_s
    if made.served:
        done_s = sent_s + made.latency_s  # afterwards its picture was decoded here
        begun_s = None
    return Times(sent_s if due_s is None else due_s, sent_s, begun_s, done_s, made.latency_s)


def one_request(
    engine: Engine,
    pair: Pair,
    turn: Turn,
    window_began_s: float,
    make: Callable[[Pair], Generation] | None = None,
) -> tuple[Request, Generation]:
    """Make one call, and say how it went. `make` takes the place of the engine's own call.

    `window_began_s` is when the window began, on the clock of `time.perf_counter`. Raises what the engine raises.
    """
    sent_s = time.perf_counter() - window_began_s
    made = engine.generate(*pair.call) if make is None else make(pair)
    done_s = time.perf_counter() - window_began_s
    hold_latency(engine, made)
    return request_of(made, pair, turn, times_of(made, sent_s, done_s)), made


def failure_of(error: Exception) -> tuple[str, BaseException]:
    """The code of an engine's error, and what is behind it."""
    cause = error.__cause__ if isinstance(error, StageError) and error.__cause__ is not None else error
    return code_of(cause), cause


def hold_latency(engine: Engine, made: Generation) -> None:
    """Raise ValueError for a call that says it took no time that can be."""
    if not (math.isfinite(made.latency_s) and made.latency_s > 0):
        raise ValueError(f"{type(engine).__name__}.generate says that the call took {made.latency_s} s")


def image_sha256(made: Generation) -> str:
    """Of an image's bytes."""
    return hashlib.sha256(made.image.tobytes()).hexdigest()


def request_of(made: Generation, pair: Pair, turn: Turn, times: Times) -> Request:
    """What a window keeps of a call; hashes its image and looks whether it is one."""
    invalid_reasons = [*spoilt_by(made), *(["compiled"] if made.compiled else [])]
    return Request(
        index=turn.index,
        trial_id=turn.trial_id,
        role=turn.role,
        prompt_id=pair.prompt_id,
        seed=pair.seed,
        due_s=times.due_s,
        sent_s=times.sent_s,
        begun_s=times.begun_s,
        done_s=times.done_s,
        latency_s=times.latency_s,
        stages_s=made.stages_s,
        steps_s=made.steps_s,
        cached_steps=made.cached_steps,
        residual_diffs={step: diff for step, diff in made.residual_diffs.items() if math.isfinite(diff)},
        image_sha256=image_sha256(made),
        images=made.images,
        text_tokens=made.text_tokens,
        ranks=made.ranks,
        server_s=made.server_s,
        server_peak_bytes=made.server_peak_bytes,
        compile_s=made.compile_s,
        valid=not invalid_reasons,
        invalid_reasons=invalid_reasons,
    )
