"""stdout is data, stderr is talk; what cannot be printed there never changes what a command found out.

Example: `zbench gate slow --baseline b | true` ends with 1, for it is a regression, whoever stopped listening. While a
command runs, `guarded` stands around both streams. It decides no verdict and knows no command.
"""

import codecs
import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from zbench.errors import Exit
from zbench.sanitize import printable

if TYPE_CHECKING:
    from typing import TextIO

LIKE = {
    "×": "x", "–": "-", "—": "-", "─": "-", "…": "...", "→": "->", "±": "+-", "·": "|", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
"""What is printed where a stream's encoding lacks a character; `?` for any other."""


def talk(text: str) -> None:
    """Say a line on stderr, whatever is in it."""
    print(printable(text), file=sys.stderr)


def talk_from_handler(text: str) -> None:
    """The same from a signal handler, which may interrupt anything, printing included: only a bare write is safe."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


class GuardedStream:
    """A text stream that drops what cannot be written and remembers why; all else is the stream's own."""

    def __init__(self, stream: "TextIO") -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._failure: OSError | ValueError | None = None
        self.lacks_characters = False

    def __getattr__(self, name: str) -> Any:
        """Everything but writing: encoding, isatty, fileno, …"""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Never raises for a stream that is full, closed or of another encoding."""
        if self._failure is None:
            try:
                self._write(text)
            except (OSError, ValueError) as error:  # ValueError: somebody closed it
                self._failure = error
        return len(text)

    def flush(self) -> None:
        """Never raises either."""
        if self._failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._failure = error

    @property
    def lost(self) -> str:
        """Why data did not arrive; "" where all did, and where the reader went away and wants no more."""
        code = getattr(self._failure, "errno", None)
        if self._failure is None or code == errno.EPIPE or (code == errno.EIO and self._is_terminal):
            return ""
        return os.strerror(code) if code else str(self._failure)

    def release(self) -> None:
        """Flush; what a broken stream still holds is thrown away, for the interpreter flushes once more as it ends."""
        self.flush()
        if self._failure is not None:
            with suppress(OSError, ValueError, AttributeError):
                void = os.open(os.devnull, os.O_WRONLY)
                os.dup2(void, self._stream.fileno())
                os.close(void)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            if _is_json(text):
                text = "".join(char if char.isascii() else json.dumps(char)[1:-1] for char in text)
            else:
                self.lacks_characters = True
                text = text.encode(self._stream.encoding, LIKENESS).decode(self._stream.encoding)
            self._stream.write(text)


class Streams:
    """stdout and stderr while a command runs."""

    def __init__(self, out: GuardedStream, err: GuardedStream) -> None:
        self._out, self._err = out, err

    def exit_code(self, code: int, *, is_verdict: bool) -> int:
        """`code`; but 2 where that is 0 and no verdict, and data did not arrive. A line says what did not arrive."""
        self._out.flush()
        if self._out.lacks_characters:
            talk(
                f"note: stdout's encoding, {self._out.encoding}, lacks characters that were printed as others; "
                "PYTHONIOENCODING=utf-8 keeps them"
            )
        if self._out.lost:
            talk(f"zbench: error: cannot write to stdout: {self._out.lost}")
            return code if is_verdict else code or Exit.BAD_INPUT
        return code


@contextmanager
def guarded() -> Iterator[Streams]:
    """Have prints inside go to streams that never raise; a stream that was closed before takes everything silently."""
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as void:
        out, err = (GuardedStream(stream if stream is not None else void) for stream in before)
        sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
        try:
            yield Streams(out, err)
        finally:
            out.release()
            err.release()
            sys.stdout, sys.stderr = before


def _fill_closed_descriptors() -> None:
    """Open 0, 1 and 2 where they are closed: else the next file opened gets that number, and what any library or child
    prints lands in it, a journal perhaps."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(descriptor, True)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _alike(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(LIKE.get(char, "?") for char in lacking), error.end


LIKENESS = "zbench-likeness"
codecs.register_error(LIKENESS, _alike)
