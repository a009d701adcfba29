"""In which turns of a lap the uncached trial takes part that is there for the others' sake; it asks no clock."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from zbench.workload import MOST_BESIDE, Pair

GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples, less their whole parts, are spread evenly between 0 and 1, of however many one looks at the first."""


def joined(turns: Sequence[Sequence[Pair]], trials: int, own: int, beside: Iterable[tuple[str, int]]) -> set[int]:
    """Places in `turns`, the lap's images turn by turn, so that it makes MOST_BESIDE of what `trials` trials make.

    `own` counts the requests of all trials in the laps before, `beside` are the images (prompt id and seed) that it
    made itself. What it made least often comes first, and turns that lie apart. Of three trials or more it has all.
    """
    made = Counter(beside)
    room = math.floor(MOST_BESIDE * (own + trials * sum(map(len, turns))) + 1e-9) - made.total()
    fewest = [max(made[pair.prompt_id, pair.seed] for pair in turn) for turn in turns]
    found = set()
    for place in sorted(range(len(turns)), key=lambda place: (fewest[place], (place + 1) * GOLDEN % 1)):
        if len(turns[place]) <= room:
            found.add(place)
            room -= len(turns[place])
    return found
