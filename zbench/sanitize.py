r"""Text of records and command lines as it may safely be shown: on a terminal, in a CI's log, on a shell line, in CSV.

A label such as `\x1b[2J` would clear the screen, one with a line feed and `::error::` would speak to GitHub in zbench's
name, and one that begins with `=` would be a formula. What such a character was stays readable, as the escape that
Python writes. Where a machine keeps its folders is nobody else's business (`without_folders`). It refuses nothing. What
is in JSON stays what it is, and nothing here touches Parquet.
"""

import os
import re
import shlex
import tempfile
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

JOINERS = "\u200c\u200d"
"""Of the characters that only say how their neighbours are drawn, those that words and emoji are spelled with."""

SPOKEN_TO_CI = re.compile(r"^(\s*)(?=::)|#(?=#\w*\[)")
"""Where a line would be a command to a CI that reads its log: `::error::` of GitHub at the line's start, and anywhere
`##[error]`, `##vso[…]` of Azure, `##teamcity[…]`."""

SHORT_ESCAPES = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
"""Of bash's `$'…'`."""

PASSWORD = re.compile(r"((?:^|//|=|\s)[^\s/:@]*:(?!//))\S*@")
"""Of a URL, between the user's name and the host."""

PASSWORD_IN_QUERY = re.compile(r"([?&](?:password|passwd|pwd)=)[^&\s]*", re.IGNORECASE)
"""Of a URL, among what its driver is told."""

FORMULA = re.compile(r"[\s\"']*[-=+@＝＋－＠]")
"""How a cell begins that a spreadsheet takes for a formula (OWASP, CSV injection)."""


IN_QUOTES, BARE = r"(?<=[\"'])/(?:[^\"'\n]*/)?", r"(?<![\w.~\"'/:-])/(?:[^\s\"'/]+/)*"
"""How the folders before a path's telling part are written: whatever is between quotes, and no blank elsewhere."""

TELLING = tuple(
    re.compile(rf"(?:{IN_QUOTES}|{BARE}){begins}")
    for begins in (r"(?:site|dist)-packages/", r"lib/(?=python3\.\d+/)", r"(?=zbench/(?:\w+/)*\w+\.py)")
)
"""What comes before the part of a path that is the same on every machine: a package's, the standard library's, ours."""


OF_A_TRACE = re.compile(r"(?<=File \")/[^\"\n]*/(?=[^/\"\n]+/[^/\"\n]+\")")
"""In a trace, what comes before the last folder of a file that is nobody's package, such as a plugin's."""


def without_folders(text: str) -> str:
    """What a program said, without the folders of this machine: `File "torch/nn/modules/module.py", line 7`.

    A path in the current folder is relative to it, one in the user's home begins with `~`, one among temporary files
    with `$TMPDIR`. Of other files in a trace the last folder stays. What is left somebody typed, or is a system's.
    """
    if "/" not in text:
        return text
    for folders in TELLING:
        text = folders.sub("", text)
    try:
        current = os.getcwd()
    except OSError:  # it was removed
        current = ""
    for folder, instead in _folders(current, os.path.expanduser("~"), tempfile.gettempdir()):
        text = folder.sub(instead, text)
    return OF_A_TRACE.sub("…/", text)


def printable(text: str) -> str:
    r"""One line in which every character can be seen, and that is no command to a CI.

    Line feeds, control and bidi characters are escapes (`\x1b`), and `::error::x` is `\::error::x`.
    """
    if not text.isprintable():
        text = "".join(char if _is_seen(char) else char.encode("unicode_escape").decode() for char in text)
    return SPOKEN_TO_CI.sub(lambda found: f"{found[0]}\\", text)


def printable_lines(text: str) -> str:
    """The same, but line feeds stay."""
    return "\n".join(map(printable, text.split("\n")))


def shell_line(words: Iterable[str]) -> str:
    r"""Words quoted for a shell, on one line and `printable`: with bash's `$'a\nb'` where plain quotes would not do."""
    return " ".join(map(_quoted, words))


def without_password(text: str) -> str:
    """A text with the URL of a database, `***` in place of its password; too much is hidden sooner than too little."""
    return PASSWORD_IN_QUERY.sub(r"\1***", PASSWORD.sub(r"\1***@", text))


def json_text(text: str) -> str:
    """The same JSON with escapes for what `printable` would not leave as it is: data stays what it is."""
    lines = text.split("\n")
    seen = (
        line if line.isprintable() else "".join(c if _is_seen(c) else _json_escape(c) for c in line) for line in lines
    )
    return SPOKEN_TO_CI.sub(lambda found: _json_escape("#") if "#" in found[0] else found[0], "\n".join(seen))


def csv_cell(value: object) -> object:
    """What is no text, and text that is a number, as it is; other text `printable`, and no formula to a spreadsheet."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if FORMULA.match(value) and not _is_number(value) else text


@lru_cache(maxsize=8)
def _folders(current: str, home: str, temporary: str) -> list[tuple[re.Pattern[str], str]]:
    """What is written in place of each folder, those inside others first; of none that is the root."""
    known = {temporary: "$TMPDIR", home: "~", current: "."}
    known = {os.path.realpath(path): instead for path, instead in known.items() if path} | known
    written = []
    for path in sorted((path for path in known if len(path) > 1), key=len, reverse=True):
        begins = rf"(?<![\w.~-]){re.escape(path)}"
        if known[path] == ".":
            written.append((re.compile(rf"{begins}/(?=[\w.])"), ""))
        written.append((re.compile(rf"{begins}(?![\w.-])"), known[path]))
    return written


def _is_seen(char: str) -> bool:
    return char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs"


def _quoted(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    escaped = SPOKEN_TO_CI.sub(lambda found: found[0].replace("#", "\0"), word.replace("\0", ""))
    return f"$'{''.join(map(_shell_escape, escaped))}'"


def _shell_escape(char: str) -> str:
    code = ord(char)
    if char == "\0":  # the first `#` of a command to a CI
        return r"\x23"
    if char in SHORT_ESCAPES:
        return SHORT_ESCAPES[char]
    if _is_seen(char):
        return char
    if 0xDC80 <= code <= 0xDCFF:  # a byte of the command line that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
