"""What is to be known of figures that a server's client took: what its own time leaves out, and how pictures came."""

from collections.abc import Sequence

from zbench.analysis.figures import TrialFigures
from zbench.report.text import cells

TELLING = 0.1
"""Of what the client waits; a smaller part is left out of every server's time."""

LOSSY = ("jpeg", "webp")

MEANS = (
    "what encodes and carries an image, or GPU work that its clock does not wait for. Latencies here are the client's"
)


def outside_notes(rows: Sequence[TrialFigures]) -> list[str]:
    """One sentence on all trials whose server leaves out more than TELLING; none where there is no such."""
    told = [
        (row, row.outside_s, row.outside_s / (row.server_s + row.outside_s))
        for row in rows
        if row.outside_s and row.server_s is not None
    ]
    telling = [(row, seconds, share) for row, seconds, share in told if share > TELLING]
    if not telling:
        return []
    seconds = _range([cells.digits(s) for _, s, _ in sorted(telling, key=lambda entry: entry[1])])
    shares = _range([cells.percent(share) for _, _, share in sorted(telling, key=lambda entry: entry[2])])
    which = "" if len(telling) == len(rows) else f" ({cells.listed([row.label for row, _, _ in telling])})"
    return [
        f"The server's own time (inference_time_s) leaves out {seconds} s of a lone request{which}, {shares} of what "
        f"its client waits: {MEANS}."
    ]


def lossy_notes(rows: Sequence[TrialFigures]) -> list[str]:
    """That pictures came in a format that does not keep each pixel, and what their likeness is then."""
    formats = dict.fromkeys(row.image_format for row in rows if row.image_format in LOSSY)
    return [
        f"Pictures of {cells.listed([row.label for row in rows if row.image_format == name])} came as {name}, which is "
        "lossy: they are judged against their own reference through the same format."
        for name in formats
    ]


def _range(ordered: Sequence[str]) -> str:
    low, high = ordered[0], ordered[-1]
    return low if low == high else f"{low} to {high}"
