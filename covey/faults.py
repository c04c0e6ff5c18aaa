"""Named fault points, for drills and tests: `COVEY_FAULTS="before-commit:3"` kills this process there.

A point is reached by name; at its n-th passage (default the first) the process sends itself SIGKILL, as a power cut
would. Without the environment variable a point costs one dictionary look-up. A comma separates several points.
`method-finish:2:daemon`, at a point that a worker passes, kills the worker's daemon there, and not the worker.
Whoever is killed is named on standard error before; a drill without that line has tested nothing (`not_passed`).
"""

from __future__ import annotations

import contextlib
import os
import signal

STANDARD_ERROR = 2
_DAEMON = os.getppid()


def _parse(text: str) -> dict[str, tuple[int, int]]:
    """Point to how many passages are left, and the process that is killed then."""
    points: dict[str, tuple[int, int]] = {}
    for item in filter(None, text.split(",")):
        name, count, victim, *_ = [*item.split(":"), "", ""]
        points[name] = int(count or 1), _DAEMON if victim == "daemon" else os.getpid()
    return points


_remaining = _parse(os.environ.get("COVEY_FAULTS", ""))


def reach(point: str) -> None:
    """Pass the fault point `point`: dies here if the environment says so, else does nothing."""
    if not _remaining or point not in _remaining:
        return
    left, victim = _remaining.pop(point)
    if left > 1:
        _remaining[point] = left - 1, victim
    elif victim in (os.getpid(), os.getppid()):  # a daemon that is gone already is not looked for
        with contextlib.suppress(OSError):
            os.write(STANDARD_ERROR, f"{_said_of(point)}process {victim} is killed\n".encode())
        os.kill(victim, signal.SIGKILL)


def not_passed(points: str, printed: str) -> list[str]:
    """The points, written as in `COVEY_FAULTS`, at which nobody was killed by what a daemon and its workers printed."""
    return [item for item in filter(None, points.split(",")) if _said_of(item.split(":")[0]) not in printed]


def _said_of(point: str) -> str:
    return f"fault point {point}: "
