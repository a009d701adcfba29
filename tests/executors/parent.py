"""A parent for tests to kill: runs one trial from a JSON file and prints the worker's events as they come.

Usage: python parent.py TASK_FILE, with {"trial": …, "measure": …, "folder": …}.
"""

import json
import sys
from pathlib import Path
from typing import Any

from zbench.config import ExecutorConfig, MeasureConfig
from zbench.executors import Setting, Task
from zbench.executors.local import LocalExecutor
from zbench.trial import Trial

data: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
folder = Path(data["folder"])
setting = Setting(Trial.from_dict(data["trial"]), folder / "artifacts")
with LocalExecutor(ExecutorConfig(), folder / "logs", allow_code=True) as executor:
    executor.submit(Task((setting,), MeasureConfig(**data["measure"])))
    print(executor.next_done(lambda _, event: print(json.dumps(event), flush=True), lambda: False), flush=True)
