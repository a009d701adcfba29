"""Which parallel degrees `sglang serve` (0.5.23) starts with: its own rules, beside those that hold for any engine."""

from zbench.methods.parallel import ParallelDims


def refusal(dims: ParallelDims, heads: int) -> str | None:
    """Why SGLang would not start with these degrees and a transformer of so many heads, or None."""
    if dims.gather > 1 and (dims.ulysses > 1 or dims.ring > 1):
        return "its kv-gather degree must be all of its sequence degree, and excludes Ulysses and ring"
    left = heads // dims.tp
    if left % dims.ulysses:
        return f"{left} heads a device after tensor parallelism are not divisible by Ulysses {dims.ulysses}"
    return None
