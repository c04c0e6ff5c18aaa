"""Named fault points, for drills and tests: `COVEY_FAULTS="before-commit:3"` kills this process there.

A point is reached by name; at its n-th passage (default the first) the process sends itself SIGKILL, as a power cut
would. Without the environment variable a point costs one dictionary look-up. A comma separates several points.
`method-finish:2:daemon`, at a point that a worker passes, kills the worker's daemon there, and not the worker.
`aggregate:2:suspend` suspends the process there (SIGSTOP), until who drills lets it go on (SIGCONT);
`aggregate:2+:suspend` does at each passage from the second on.
Whoever is hit is named on standard error before; a drill without that line has tested nothing (`not_passed`).

`COVEY_LOSSES="gossip-batch:0.2"` loses a fifth of the messages of a kind, drawn anew for each.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal

STANDARD_ERROR = 2
_DAEMON = os.getppid()
SUSPEND = "suspend"


def _parse(text: str) -> dict[str, tuple[int, int, signal.Signals, bool]]:
    """Point to how many passages are left, the process that is hit then, with which signal, and whether again."""
    points: dict[str, tuple[int, int, signal.Signals, bool]] = {}
    for item in filter(None, text.split(",")):
        name, count, how, *_ = [*item.split(":"), "", ""]
        number = signal.SIGSTOP if how == SUSPEND else signal.SIGKILL
        victim = _DAEMON if how == "daemon" else os.getpid()
        points[name] = int(count.rstrip("+") or 1), victim, number, count.endswith("+")
    return points


def _parse_losses(text: str) -> dict[str, float]:
    """Kind of message to the probability that one is lost."""
    return {name: float(share) for name, _, share in (item.partition(":") for item in filter(None, text.split(",")))}


_remaining = _parse(os.environ.get("COVEY_FAULTS", ""))
_losses = _parse_losses(os.environ.get("COVEY_LOSSES", ""))
_dice = random.SystemRandom()


def is_lost(kind: str) -> bool:
    """Whether a message of a kind is to be lost: never, unless the environment says so."""
    return bool(_losses) and _dice.random() < _losses.get(kind, 0.0)


def reach(point: str) -> None:
    """Pass the fault point `point`: dies, or waits, here if the environment says so, else does nothing."""
    if not _remaining or point not in _remaining:
        return
    left, victim, number, is_again = _remaining.pop(point)
    if left > 1 or is_again:
        _remaining[point] = max(left - 1, 1), victim, number, is_again
    if left == 1 and victim in (os.getpid(), os.getppid()):  # a daemon that is gone already is not looked for
        with contextlib.suppress(OSError):
            what = "suspended" if number == signal.SIGSTOP else "killed"
            os.write(STANDARD_ERROR, f"{_said_of(point)}process {victim} is {what}\n".encode())
        os.kill(victim, number)


def not_passed(points: str, printed: str) -> list[str]:
    """The points, written as in `COVEY_FAULTS`, at which nobody was hit by what a daemon and its workers printed."""
    return [item for item in filter(None, points.split(",")) if _said_of(item.split(":")[0]) not in printed]


def _said_of(point: str) -> str:
    return f"fault point {point}: "
