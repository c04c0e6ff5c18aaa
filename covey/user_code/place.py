"""Where in the user's code an error was made, or a step hangs: file, line and function, for messages to people."""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>.+)$', re.MULTILINE)
"""As `faulthandler` writes frames."""
_LIBRARIES = ("torch", "torchvision", "numpy", "pandas", "sklearn", "PIL", "scipy", "pydantic", "pydantic_core")
_COVEY = Path(__file__).resolve().parents[2]
"""Of a clone also the folders that `covey` links to."""
_OWN = tuple(f"{_COVEY / name}/" for name in ("covey", "coordinator", "node", "aggregation", "storage", "protos"))
_STANDARD = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")})
_INSTALLED = re.compile(r"/(?:site|dist)-packages/([^/]+)")

Frame = tuple[str, int, str]
"""File, line, function."""


def error_text(error: BaseException) -> str:
    """An error for people: `ValueError: no label 7 (tasks.py:31, in loss)`; without a text, the line that raised it."""
    frame, name = _users(reversed(list(_frames(error.__traceback__)))), type(error).__name__
    text, line = str(error).strip(), linecache.getline(frame[0], frame[1]).strip() if frame else ""
    words = f"{name}: {text}" if text else f"{name} at `{line}`" if line else name
    return words + (f" ({_named(frame)})" if frame else "")


def place_of(error: BaseException) -> str:
    """Where an error was raised, as far as that is the user's code: `tasks.py:31, in loss`; else empty."""
    frame = _users(reversed(list(_frames(error.__traceback__))))
    return _named(frame) if frame else ""


def place_in(dump: str) -> str:
    """Where the stacks that `faulthandler` wrote are, as far as that is the user's code: `tasks.py:31, in loss`."""
    frame = _users((match["file"], int(match["line"]), match["function"]) for match in _FRAME.finditer(dump))
    return _named(frame) if frame else ""


def _frames(traceback: TracebackType | None) -> Iterator[Frame]:
    while traceback is not None:
        code = traceback.tb_frame.f_code
        yield code.co_filename, traceback.tb_lineno, code.co_name
        traceback = traceback.tb_next


def _named(frame: Frame) -> str:
    return f"{shown(frame[0])}:{frame[1]}, in {frame[2]}"


def _users(frames: Iterable[Frame]) -> Frame | None:
    """The first frame that is the user's, from the innermost on; packages that they installed come second."""
    theirs = [frame for frame in frames if is_users(frame[0])]
    return next((frame for frame in theirs if not _INSTALLED.search(frame[0])), theirs[0] if theirs else None)


def is_users(file: str) -> bool:
    """Whether a file is neither Covey's, nor Python's, nor of a library that tasks are made with."""
    if file.startswith("<") or str(Path(file).resolve()).startswith(_OWN):
        return False
    installed = _INSTALLED.search(file)
    if installed is not None:
        return installed[1].removesuffix(".py") not in (*_LIBRARIES, "covey")
    return not file.startswith(_STANDARD)


def shown(file: str) -> str:
    """A file by its name below the folder that it is imported from; a machine's folders are nobody's concern."""
    path = Path(file)
    below = [path.relative_to(folder) for folder in filter(None, sys.path) if path.is_relative_to(folder)]
    return str(min(below, key=lambda each: len(each.parts), default=Path(path.name)))
