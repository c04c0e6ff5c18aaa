"""The results page: prose by hand, and tables between marks that a run replaces."""

from __future__ import annotations

import re
from pathlib import Path


def replaced(text: str, part: str, lines: list[str]) -> str:
    """A page with the lines of a part between `<!-- begin PART -->` and `<!-- end PART -->`.

    Raises:
        ValueError: The page has no such marks.
    """
    begin, end = f"<!-- begin {part} -->", f"<!-- end {part} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    replaced, count = pattern.subn(lambda _: "\n".join([begin, "", *lines, "", end]), text)
    if count != 1:
        raise ValueError(f"the page must have the marks {begin} and {end} once, not {count} times")
    return replaced


def update(page: Path, part: str, lines: list[str]) -> None:
    """Write the lines of a part into a page."""
    page.write_text(replaced(page.read_text(encoding="utf-8"), part, lines), encoding="utf-8")
