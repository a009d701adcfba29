"""What workers measured for a pool that was killed before it heard of it, kept until the same measurement is wanted."""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from zbench.config import MeasureConfig
from zbench.executors import Completed, Recovered, Setting, Task
from zbench.executors.remote import freight, wire


class UnheardResults:
    """Of a run. A trial is known by all that its worker was told: itself, how it is measured, and which images it is
    judged by."""

    def __init__(self, messages: Iterable[bytes]) -> None:
        """Of `messages`, those that end a task; what cannot be read is left out, and is measured again."""
        self._found: dict[str, tuple[Recovered, dict[str, memoryview]]] = {}
        for message in messages:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                self._add(message)

    def _add(self, message: bytes) -> None:
        head, files = wire.unpacked(message)
        if head["say"] != "done":
            return
        task, environment = head["task"], wire.environment_in(head["environment"])
        results = zip(task["settings"], wire.results_in(head["results"]), strict=True)
        for number, (setting, result) in enumerate(results):
            if isinstance(result, Completed):
                own = freight.under(str(number), files)
                self._found[_key(setting, task["measure"])] = Recovered(result.measurement, environment), own

    def take(self, setting: Setting, measure: MeasureConfig) -> Recovered | None:
        """What came of such a setting, with its images in its folder, once; None where nothing did.

        Raises StoreError where they cannot be written.
        """
        task, folder = Task((setting,), measure), setting.reference
        told = wire.task_out(task, {} if folder is None else {folder: freight.content_key(folder)})
        found = self._found.pop(_key(told["settings"][0], told["measure"]), None)
        if found is None:
            return None
        recovered, files = found
        try:
            if files:
                freight.unloaded(files, setting.artifacts)
        except ValueError:  # no file that a trial leaves
            return None
        return recovered


def _key(setting: Any, measure: Any) -> str:
    return json.dumps([setting, measure], sort_keys=True)
