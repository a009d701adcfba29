"""Text that tries to leave its place: the terminal's, a CI's, Markdown's, HTML's, XML's, a spreadsheet's."""

import unicodedata

HOSTILE = (
    "=1+1\n::error title=x::pwned\r\x1b[2J\x1b]0;t\x07\b\x00\x7f\x9b\u202egnp\u2028::warning::x\x85\ufffe "
    "<script>alert(1)</script><img src=x onerror=alert(1)>[a](javascript:x)![i](http://e/x.png)|`x`\n\n"
    "<b>raw</b> ]]> ##[error]v1 ##vso[task.x] $x$ ' \" %0A"
)

RAW_HTML = ("<script", "<img src=x", "<b>")


def unseen(text: str) -> set[str]:
    """Its characters that a terminal, XML or a reader's eye has no place for; line feeds are none."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")}


def commands_to_ci(text: str) -> list[str]:
    """Lines that GitHub or Azure would obey."""
    lines = text.splitlines()
    return [line for line in lines if line.lstrip().startswith("::") or "##[" in line or "##vso[" in line]
