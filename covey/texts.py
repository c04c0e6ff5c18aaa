"""Text files as people have them: with a byte order mark, in UTF-16, with line ends of Windows."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
BOM = "\ufeff"
_FORMULA = ("=", "+", "-", "@", "\t")
_TYPOGRAPHIC = re.compile("[\u2018-\u201f\u00ab\u00bb]")
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What steers a terminal, or the order in which it shows letters; line ends and tabs apart."""


def number_of(count: int, what: str) -> str:
    """So many of something: `1 node`, `2 nodes`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def printable(text: str) -> str:
    """Text of somebody else's, as it may be shown: what would steer the terminal is escaped."""
    return _STEERING.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def decoded(raw: bytes) -> str:
    """Text in UTF-8, or in what its byte order mark says (as PowerShell writes it); with line ends of Unix.

    Raises:
        UnicodeDecodeError: It is not.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", "utf-8"))
    return raw[len(mark) :].decode(encoding).replace("\r\n", "\n")


def why_no_toml(text: str, error: Exception) -> str:
    """The parser's words, with what to write where the line has what a text program or a Windows path put there."""
    match = re.search(r"at line (\d+)", str(error))
    line = "".join(text.splitlines()[int(match[1]) - 1 : int(match[1])]) if match else ""
    if _TYPOGRAPHIC.search(line):
        return f"{error}; typographic quotes are none in TOML: write \" or '"
    if "\\" in line:
        return f"{error}; a backslash begins an escape within \"...\": write a Windows path in '...'"
    return str(error)


def read_text(path: Path) -> str:
    """A text file. Raises `UnicodeDecodeError` as `decoded`, and `OSError`."""
    return decoded(path.read_bytes())


def read_pem(path: Path) -> bytes:
    """A PEM file as programs want it; what is no text is given back as it is. Raises `OSError`."""
    raw = path.read_bytes()
    try:
        return decoded(raw).encode()
    except UnicodeDecodeError:
        return raw


def no_formula(text: str) -> str:
    """A text as a cell of CSV: what a table calculation would take for a formula has an apostrophe before it."""
    text = text.replace("\r", " ")
    return f"'{text}" if text.startswith(_FORMULA) else text
