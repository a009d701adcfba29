"""Every combination of degrees for so many devices: what `parallel=all` stands for. It leaves none out."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from zbench.methods.parallel.dims import KEY, ParallelDims


def every_split(devices: int) -> tuple[dict[str, Any], ...]:
    """Keys of `parallel` with their values, fewest devices first.

    The product of each combination divides `devices` evenly. Where several devices make an image they share its decode
    too; one device by itself has all defaults, so that it is the baseline.
    """
    divisors = [number for number in range(1, devices + 1) if devices % number == 0]
    points = []
    for product in divisors:
        for degrees in _factors(product, len(fields(ParallelDims))):
            dims = ParallelDims(*degrees)
            keys = {item.metadata[KEY]: getattr(dims, item.name) for item in fields(dims)}
            points.append({**keys, "vae": "split" if dims.ranks > 1 else "whole"})
    return tuple(points)


def _factors(product: int, places: int) -> Iterator[tuple[int, ...]]:
    """Every tuple of so many numbers with this product, those with the product in the last places first."""
    if places == 1:
        yield (product,)
        return
    for first in range(1, product + 1):
        if product % first == 0:
            for rest in _factors(product // first, places - 1):
                yield (first, *rest)
