"""What a plug-in says of itself: its first line, its source, its file."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import covey
from covey.plugins import Plugin

INSIDE = r"(?:[^()]|\(\d+\))*"
YEAR_OR_NUMBER = re.compile(
    rf"\((?:{INSIDE}\b(?:19|20)\d\d\b{INSIDE}|{INSIDE}\barXiv \d{{4}}\.\d{{4,5}}{INSIDE})\)|\barXiv \d{{4}}\.\d{{4,5}}"
)
"""What a source ends with: a venue and a year, or a number at arXiv."""
MARK = re.compile(r"^.*?\b(?:Source(?: of [^:]+)?|Vector): ")
SENTENCE = re.compile(r"(?:(?<=[^l]\.)|(?<=[\)\w]:))\s+(?=[A-Z\"])")
"""Where the sentence of a source begins: not after "et al."."""


@dataclass(frozen=True)
class Entry:
    """A plug-in as the page has it.

    Attributes:
        name: As a specification names it.
        summary: The first line of its docstring.
        source: The first paper that its docstring, or its module's, names; empty: it names none.
        file: From the top of the project.
    """

    name: str
    summary: str
    source: str
    file: str


def entry_of(plugin: Plugin) -> Entry:
    """What a plug-in says of itself; it is imported."""
    module, attribute = plugin.target.split(":")
    loaded = getattr(import_module(module), attribute)
    text = inspect.getdoc(loaded) or ""
    near = [base for base in loaded.__mro__ if base.__module__ == loaded.__module__]
    speaking = [*near, sys.modules[loaded.__module__]]
    source = next(filter(None, (source_in(_body(inspect.getdoc(each) or "")) for each in speaking)), "")
    file = Path(inspect.getfile(loaded)).relative_to(Path(covey.__file__).parents[1])
    return Entry(plugin.name, " ".join(text.partition("\n\n")[0].split()), source, file.as_posix())


def source_in(text: str) -> str:
    """The first source that a text names, from the authors to the year or number; empty: none."""
    for paragraph in text.split("\n\n"):
        flat = " ".join(paragraph.split())
        if end := YEAR_OR_NUMBER.search(flat):
            before = flat[: end.start()]
            title = before.rfind('"', 0, max(before.rfind('"'), 0))
            start = max((cut.end() for cut in SENTENCE.finditer(before[: title if title >= 0 else None])), default=0)
            return MARK.sub("", flat[start : end.end()])
    return ""


def _body(text: str) -> str:
    """A docstring without its sections for attributes and arguments."""
    return re.split(r"^(?:Attributes|Class attributes|Args|Raises|Returns):", text, flags=re.MULTILINE)[0]
