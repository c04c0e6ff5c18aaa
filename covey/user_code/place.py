"""Where in the user's code an error was made, or a step hangs: file, line and function, for messages to people."""

from __future__ import annotations

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
_STANDARD = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
_INSTALLED = re.compile(r"/(?:site|dist)-packages/([^/]+)")

Frame = tuple[str, int, str]
"""File, line, function."""


def place_of(error: BaseException) -> str:
    """Where an error was raised, as far as that is the user's code: `tasks.py:31, in loss`; else empty."""
    return _innermost(reversed(list(_frames(error.__traceback__))))


def place_in(dump: str) -> str:
    """The same, of the stacks that `faulthandler` wrote: of the thread that is in the user's code."""
    return _innermost((frame["file"], int(frame["line"]), frame["function"]) for frame in _FRAME.finditer(dump))


def _frames(traceback: TracebackType | None) -> Iterator[Frame]:
    while traceback is not None:
        code = traceback.tb_frame.f_code
        yield code.co_filename, traceback.tb_lineno, code.co_name
        traceback = traceback.tb_next


def _innermost(frames: Iterable[Frame]) -> str:
    """The first frame that is the user's, from the innermost on; packages that they installed come second."""
    theirs = [frame for frame in frames if _is_users(frame[0])]
    chosen = next((frame for frame in theirs if not _INSTALLED.search(frame[0])), theirs[0] if theirs else None)
    return f"{shown(chosen[0])}:{chosen[1]}, in {chosen[2]}" if chosen else ""


def _is_users(file: str) -> bool:
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
