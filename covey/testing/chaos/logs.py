"""What logs of daemons must not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

MOST_SHOWN = 2000
"""Characters of a traceback."""


def tracebacks_in(logs: Iterable[Path]) -> Iterator[str]:
    """Logs in which a daemon or worker was surprised; SIGINT before one is ready ends it as it ends any Python."""
    for path in logs:
        _, *surprises = path.read_text(errors="replace").split("Traceback (most recent call last)")
        for text in surprises:
            if "\nKeyboardInterrupt" not in text[:MOST_SHOWN]:
                yield f"{path} has a traceback{text[:MOST_SHOWN]}"
