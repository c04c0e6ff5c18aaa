"""Times for people."""

from __future__ import annotations

import datetime


def when(seconds: float | None) -> str:
    """A Unix time as local time, with its distance from UTC; nothing for 0 and None."""
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds") if seconds else ""


def day(seconds: float | None) -> str:
    """The day of a Unix time here; nothing for 0 and None."""
    return when(seconds)[:10]
