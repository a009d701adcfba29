"""The synthetic engine, in whose generations native code holds the interpreter; it starts a process that would stay."""

import ctypes
import subprocess
from typing import Any

from synthetic import Synthetic, SyntheticEngine

from zbench.engines import Generation


class StubbornEngine(SyntheticEngine):
    """Describes `Stubborn`."""

    def engine(self) -> "Stubborn":
        return Stubborn(**self._settings)


class Stubborn(Synthetic):
    """Says in its log that it begins, and never comes back."""

    def generate(self, prompt_text: str, seed: int) -> Generation:
        child: subprocess.Popen[Any] = subprocess.Popen(["sleep", "3600"])
        print(f"child {child.pid}", flush=True)
        ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the interpreter's lock while it calls
        raise AssertionError("an hour has passed")
