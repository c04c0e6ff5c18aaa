"""How callers name runs and versions, and how the wire does."""

from __future__ import annotations

from typing import Literal

from covey.client.values import Run
from covey.errors import NotFound

NEWEST, BEST = -1, -2
"""Versions without a number, as the wire names them."""
VersionName = int | Literal["newest", "best"]
RunName = str | Run
"""A run, its id, or its name: the newest run of that name."""


def run_id(run: RunName) -> str:
    """A run as the wire names it."""
    return run.run if isinstance(run, Run) else run


def version_number(version: VersionName) -> int:
    """A version as the wire names it.

    Raises:
        NotFound: It is none.
    """
    named: dict[object, int] = {"newest": NEWEST, "best": BEST}
    number = named.get(version, version)
    if not isinstance(number, int):
        raise NotFound(f"{version!r} is not a version; choose a number, 'newest' or 'best'")
    return number
