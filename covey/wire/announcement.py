"""Where a daemon listens, in a small file of its data directory, for the command line on the same machine."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path


def announce(path: Path, **where: str) -> None:
    """Say where this process listens, and its id as `pid`; whoever reads it sees all of it or what was there before."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**where, "pid": os.getpid()}))
    temporary.replace(path)


def withdraw(path: Path) -> None:
    """Remove what this process announced, and not what another one has announced since."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
