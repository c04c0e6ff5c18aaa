"""Paths of this machine, taken out of what leaves it: a folder's name may say whose data it holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

INSTEAD = "<path>"
_ROOT = r"(?:/|~/|[A-Za-z]:\\|\\\\)"
_QUOTED = re.compile(
    rf"""(?P<mark>(?<!\\)["']|\\["'])(?P<path>(?:file:(?://)?)?{_ROOT}"""
    r"""(?:(?!(?P=mark))(?:\\["']|[^\n]))*+)(?P=mark)"""
)
_BEFORE = r"(?:(?<![\w<>./:\\-])|(?<=:)(?!//)|(?<=file://))"
"""A colon may stand before a path; of URLs only a file's is one."""
_APOSTROPHE = r"(?<=\w)'(?=\w)"
_BARE = re.compile(rf"""{_BEFORE}{_ROOT}(?:[^\s"'`,;()\[\]{{}}<>|]|{_APOSTROPHE})+""")


class Scrubber:
    """Takes out absolute paths; of a Python file its name stays, which says where code failed.

    Args:
        known: Folders and files of this machine, by the longest first: their names may hold blanks.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        names = sorted({name.rstrip("/") for name in known if len(name.rstrip("/")) > 1}, key=len, reverse=True)
        rest = rf"""(?:/(?:[^\s"'`,;:()\[\]{{}}<>|]|{_APOSTROPHE})*)?"""
        self._known = re.compile("|".join(re.escape(name) + r"(?![\w-])" + rest for name in names)) if names else None

    def __call__(self, text: str) -> str:
        """The text without paths."""
        text = _QUOTED.sub(lambda match: f"{match['mark']}{_instead(match['path'])}{match['mark']}", text)
        if self._known is not None:
            text = self._known.sub(lambda match: _instead(match.group()), text)
        return _BARE.sub(lambda match: _instead(match.group()), text)


def _instead(path: str) -> str:
    name = PurePath(path.replace("\\", "/")).name
    is_code = re.fullmatch(r"\w+\.py(?::\d+)?:?", name) is not None
    return f"{INSTEAD}/{name}" if is_code else INSTEAD
