"""Runs kernels that are written in Triton by torch on a CPU, one program after another: their arithmetic and places.

Where each reads and writes is held against the tensor that it was given. What a compiler makes of them is not seen.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


class Pointer:
    """Into a contiguous tensor, at one or several places."""

    def __init__(self, of: Tensor, places: Any = 0) -> None:
        assert of.is_contiguous()
        self._of, self._places = of, places
        self.dtype = self  # whose element_ty is the tensor's
        self.element_ty = of.dtype

    def __add__(self, places: Any) -> Pointer:
        return Pointer(self._of, self._places + places)

    def _inside(self, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        places = torch.as_tensor(self._places)
        assert places.dtype == torch.int64, "a tensor may have more places than 32 bits count"
        inside = torch.ones_like(places, dtype=torch.bool) if mask is None else mask
        assert bool(((places[inside] >= 0) & (places[inside] < self._of.numel())).all()), "outside of the tensor"
        return places, inside

    def load(self, mask: Tensor | None, other: float) -> Tensor:
        places, inside = self._inside(mask)
        made = torch.full(places.shape, other, dtype=self._of.dtype)
        made[inside] = self._of.flatten()[places[inside]]
        return made

    def store(self, value: Tensor, mask: Tensor | None) -> None:
        places, inside = self._inside(mask)
        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[self._of.element_size()]  # FP8 has no indexing
        written = value.to(self._of.dtype).view(bits)
        self._of.view(bits).view(-1)[places[inside]] = written[inside]


class Kernel:
    """`kernel[grid](...)` runs it; launch options mean nothing here."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def run(*given: Any, num_warps: int) -> None:
            assert num_warps in (1, 2, 4, 8, 16, 32)
            arguments = [Pointer(each) if isinstance(each, Tensor) else each for each in given]
            for number in range(*grid):
                LANGUAGE.program_id = lambda _axis, number=number: torch.tensor(number, dtype=torch.int32)
                self._function(*arguments)

        return run


LANGUAGE: Any = ModuleType("triton.language")
vars(LANGUAGE).update(
    constexpr=object,
    float32=torch.float32,
    float8e4nv=torch.float8_e4m3fn,
    int64=torch.int64,
    arange=torch.arange,
    load=lambda pointer, mask=None, other=0.0: pointer.load(mask, other),
    store=lambda pointer, value, mask=None: pointer.store(value, mask),
    sum=lambda x, axis: x.sum(axis),
    max=lambda x, axis: x.amax(axis),
    maximum=lambda x, least: x.clamp(min=least),
    abs=torch.abs,
    sqrt=torch.sqrt,
    sigmoid=torch.sigmoid,
)
TRITON: Any = ModuleType("triton")
vars(TRITON).update(jit=Kernel, language=LANGUAGE, next_power_of_2=lambda number: 1 << (number - 1).bit_length())


@contextmanager
def imported(name: str) -> Iterator[Any]:
    """The module `name`, as it is where Triton is this; nothing else is told of it, torch's operators neither."""
    own = {key: sys.modules.get(key) for key in ("triton", "triton.language", name)}
    library = torch.library
    triton_op, wrap_triton = library.triton_op, library.wrap_triton
    try:
        sys.modules.update({"triton": TRITON, "triton.language": LANGUAGE})
        sys.modules.pop(name, None)
        library.triton_op, library.wrap_triton = lambda *_, **__: lambda made: made, lambda kernel: kernel
        yield importlib.import_module(name)
    finally:
        library.triton_op, library.wrap_triton = triton_op, wrap_triton
        for key, module in own.items():
            sys.modules.pop(key, None)
            if module is not None:
                sys.modules[key] = module
