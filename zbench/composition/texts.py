"""Text that users wrote with some editor: UTF-8, with or without its mark, any line ends. Nothing else is guessed."""

from pathlib import Path

from zbench.errors import OverrideError

_OTHER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""The longer ones first, for one begins as another does."""


def read_text(path: Path) -> str:
    """The text of a file, its lines ended by a line feed and its mark left out.

    Raises OverrideError that names the file, for one that cannot be read and one that is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OverrideError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a path that no file can have
        raise OverrideError(f"{str(path)!r}: cannot be read ({error})") from error
    marked = next((name for mark, name in _OTHER_MARKS.items() if data.startswith(mark)), None)
    if marked is None and b"\0" in data:
        marked = "UTF-16 or no text at all"
    if marked is not None:
        raise OverrideError(f"{path}: is not UTF-8 but {marked}; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise OverrideError(f"{path}, line {line}: is not UTF-8; save it as UTF-8") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.lstrip("\ufeff").replace("\n\ufeff", "\n")  # marks of files that were put together
