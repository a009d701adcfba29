"""stdout is data, stderr is talk."""

import sys


def talk(text: str) -> None:
    """Say a line beside the data."""
    print(text, file=sys.stderr)
