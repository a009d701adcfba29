"""One request to an engine, and what a window knows of it; it decides nothing about the next."""

import hashlib
import math
import time
from dataclasses import dataclass

from zbench.engines import Engine, Generation
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


def one_request(engine: Engine, pair: Pair, turn: Turn, window_began_s: float) -> tuple[Request, Generation]:
    """Make one call, and say how it went.

    `window_began_s` is when the window began, on the clock of `time.perf_counter`. Raises what the engine raises.
    """
    sent_s = time.perf_counter() - window_began_s
    made = engine.generate(*pair.call)
    done_s = time.perf_counter() - window_began_s
    if not (math.isfinite(made.latency_s) and made.latency_s > 0):
        raise ValueError(f"{type(engine).__name__}.generate says that the call took {made.latency_s} s")
    begun_s: float | None = sent_s
    if made.served:
        done_s = sent_s + made.latency_s  # afterwards its picture was decoded here
        begun_s = None if made.server_s is None else max(sent_s, done_s - made.server_s)
    invalid_reasons = [*spoilt_by(made), *(["compiled"] if made.compiled else [])]
    request = Request(
        index=turn.index,
        trial_id=turn.trial_id,
        role=turn.role,
        prompt_id=pair.prompt_id,
        seed=pair.seed,
        due_s=sent_s,
        sent_s=sent_s,
        begun_s=begun_s,
        done_s=done_s,
        latency_s=made.latency_s,
        stages_s=made.stages_s,
        steps_s=made.steps_s,
        cached_steps=made.cached_steps,
        residual_diffs={step: diff for step, diff in made.residual_diffs.items() if math.isfinite(diff)},
        image_sha256=hashlib.sha256(made.image.tobytes()).hexdigest(),
        images=made.images,
        text_tokens=made.text_tokens,
        ranks=made.ranks,
        server_s=made.server_s,
        server_peak_bytes=made.server_peak_bytes,
        valid=not invalid_reasons,
        invalid_reasons=invalid_reasons,
    )
    return request, made
