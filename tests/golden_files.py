"""Printed text is compared with files in tests/golden/; ZBENCH_UPDATE_GOLDEN=1 rewrites them, for the diff to show."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    """`text` is what tests/golden/`name` holds."""
    path = FOLDER / name
    if os.environ.get("ZBENCH_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} differs; ZBENCH_UPDATE_GOLDEN=1 accepts the new text"
