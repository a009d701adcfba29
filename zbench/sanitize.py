r"""Text of records and command lines as it may safely be shown: on a terminal, in a CI's log, on a shell line, in CSV.

A label such as `\x1b[2J` would clear the screen, one with a line feed and `::error::` would speak to GitHub in zbench's
name, and one that begins with `=` would be a formula. What such a character was stays readable, as the escape that
Python writes. It refuses nothing. What is in JSON stays what it is, and nothing here touches Parquet.
"""

import re
import shlex
import unicodedata
from collections.abc import Iterable

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
