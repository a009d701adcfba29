"""SGLang's own bench_serving, run as it is from its wheel: nothing of it is installed, unpacked or changed.

    python benchmarks/sglang_client.py WHEEL --base-url http://127.0.0.1:30000 --task text-to-image --dataset random

What SGLang imports and this client never uses (kernels, other models' packages) is stood in for where it is not
installed. `aiohttp` has to be real: SITE in the environment variable SGLANG_CLIENT_SITE names a folder that has it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import runpy
import sys
from types import ModuleType
from typing import Any

CLIENT = "sglang.multimodal_gen.benchmarks.bench_serving"
SITE = "SGLANG_CLIENT_SITE"


class AnyType(type):
    """Of a class that has every name, and may be indexed and joined in annotations."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: object) -> Any:
        return cls

    def __or__(cls, other: object) -> Any:
        return cls

    __ror__ = __or__


class Anything(metaclass=AnyType):
    """Whatever is taken from a module that is not there."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass


class AbsentModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds, last of all, what SGLang's own modules import and nobody installed. Others still find nothing."""

    def __init__(self) -> None:
        self.roots: set[str] = set()

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> Any:
        """A module without a file."""
        root = name.partition(".")[0]
        if root not in self.roots:
            if root in ("aiohttp", "sglang") or not _importer().startswith("sglang."):
                return None
            self.roots.add(root)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Python's own kind of module."""

    def exec_module(self, module: ModuleType) -> None:
        """Give it every name."""

        def any_name(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything

        module.__dict__["__getattr__"] = any_name


def _importer() -> str:
    """The module whose line imports."""
    frame = sys._getframe(2)
    while "importlib" in frame.f_code.co_filename and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '')}."


def main() -> None:
    """Run it with the arguments that follow the wheel."""
    wheel, *arguments = sys.argv[1:]
    sys.path.insert(0, wheel)
    sys.path += filter(None, [os.environ.get(SITE)])
    sys.meta_path.append(AbsentModules())
    sys.argv = [CLIENT, *arguments]
    runpy.run_module(CLIENT, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
