"""What it costs that uncached trials take turns with others: a line of a plan, and one at a sweep's end."""

from collections.abc import Iterable

from zbench.analysis.speedup import requests_by_turns
from zbench.record import Record

LEAVES_OUT = "measure.paired=false leaves them out"


def cost_expected(share: float | None) -> str | None:
    """`share` is how many more requests they make, of those of the trials; None where none takes turns."""
    if share is None:
        return None
    return f"turns with uncached trials take about {100 * share:.0f} % more requests; {LEAVES_OUT}"


def cost_of(records: Iterable[Record]) -> str | None:
    """The same of what was measured; None where none took turns."""
    own, beside = requests_by_turns(records)
    if not beside or not own:
        return None
    more = f"{100 * beside / own:.0f} % more requests ({beside} more than the {own} of the trials)"
    return f"turns with uncached trials took {more}; {LEAVES_OUT}"
