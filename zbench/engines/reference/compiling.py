"""What this process compiled: how many graphs, and the seconds that took, as torch itself counts them.

Seconds are those of Dynamo's frames, the backend's work on them included (`_compile.compile_inner` of
`torch._dynamo.utils.compile_times`, 2.11 to 2.13). Kernels that are tuned at their first launch are not in them. Where
torch does not say, nobody guesses.
"""

FRAMES = "_compile.compile_inner"
"""What torch calls the compilation of a frame, from its bytecode to code that runs; one number a frame."""


def graphs_compiled() -> int:
    """How many graphs torch.compile has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def compile_seconds() -> float | None:
    """Seconds that torch.compile has taken in this process; None where graphs were made and torch says no time."""
    from torch._dynamo import utils

    frames_s = getattr(utils, "compilation_time_metrics", {}).get(FRAMES)
    if frames_s is None:
        return 0.0 if graphs_compiled() == 0 else None
    return float(sum(frames_s))


def forget_compiled() -> None:
    """Let go of all compiled code of this process, and begin both counts anew.

    torch forgets its seconds with the code and not its graphs, and then looks as if it told no time of them.
    """
    import torch
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters["stats"].pop("unique_graphs", None)


def seconds_between(before_s: float | None, now_s: float | None) -> float | None:
    """From one count to the next, which torch may have begun anew between the two."""
    return None if before_s is None or now_s is None else max(0.0, now_s - before_s)
