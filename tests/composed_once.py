"""Hydra composes the same words once in a process of tests: 0.1 s each time, and half of the words are typed again.

A copy is given out each time. Config folders of a test's own count with the state of their files.
"""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from zbench.composition import session

Key = tuple[str, tuple[str, ...], tuple[tuple[str, int, int], ...]]


@contextmanager
def composed_once() -> Iterator[None]:
    known: dict[Key, DictConfig] = {}
    compose: Callable[..., DictConfig] = session.compose

    def once(name: str, *, overrides: list[str], **options: Any) -> DictConfig:
        key = name, tuple(overrides), _state_of(overrides)
        if key not in known:
            known[key] = compose(name, overrides=overrides, **options)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "compose", once)
        yield


def _state_of(overrides: list[str]) -> tuple[tuple[str, int, int], ...]:
    """Of all config files outside zbench's own folder, and that folder."""
    loader = GlobalHydra.instance().config_loader()
    own = str(session.conf_dir())
    named = [str(element.path) for element in loader.get_search_path().get_path()]
    named += re.findall(r"file://[^'\",\]]+", " ".join(overrides))
    folders = {each.removeprefix("file://") for each in named} - {own}
    stats = [(file, file.stat()) for folder in sorted(folders) for file in sorted(Path(folder).rglob("*.yaml"))]
    return (*((str(file), stat.st_mtime_ns, stat.st_size) for file, stat in stats), (own, 0, 0))
