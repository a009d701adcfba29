"""A function in place of an object's own, until it is undone; what hooks wrapped around it meanwhile stays in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

Undo = Callable[[], None]


def stand_in(owner: Any, name: str, new: Callable[..., Any]) -> Undo:
    """Let `owner.name` be `new`, as an attribute of the instance; the class is left alone.

    Undone, it is what it was. Where something has replaced or wrapped it since (offload hooks, graphs), that stays, and
    what it calls does what the owner's did.
    """
    own: Callable[..., Any] = getattr(owner, name)
    before = vars(owner).get(name)
    active = True

    @wraps(own)  # diffusers reads signatures
    def called(*args: Any, **kwargs: Any) -> Any:
        return new(*args, **kwargs) if active else own(*args, **kwargs)

    setattr(owner, name, called)

    def undo() -> None:
        nonlocal active
        active = False
        if vars(owner).get(name) is called:
            delattr(owner, name)
            if before is not None:
                setattr(owner, name, before)

    return undo


def undoing(undos: list[Undo]) -> Undo:
    """One for all, the last first; a second time does nothing."""

    def undo() -> None:
        while undos:
            undos.pop()()

    return undo
