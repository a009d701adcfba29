"""Requests of two trials that took turns, side by side."""

from collections.abc import Iterable

from zbench.measurement import SUSPENDED, Request

Image = tuple[str, int]


def side_by_side_s(own: Iterable[Request], beside: Iterable[Request]) -> list[tuple[Image, float, float]]:
    """Image (prompt id and seed), its own seconds and the companion's of the same turn, where both requests count.

    Both have as many turns of an image, so the first belongs to the first. What was made again is no turn.
    """
    ours, theirs = _by_image(own), _by_image(beside)
    return [
        (image, mine.latency_s, other.latency_s)
        for image, of_image in ours.items()
        for mine, other in zip(of_image, theirs.get(image, []), strict=False)
        if mine.valid and other.valid
    ]


def _by_image(requests: Iterable[Request]) -> dict[Image, list[Request]]:
    by_image: dict[Image, list[Request]] = {}
    for r in requests:
        if SUSPENDED not in r.invalid_reasons:
            by_image.setdefault((r.prompt_id, r.seed), []).append(r)
    return by_image
