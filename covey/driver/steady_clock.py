"""Time that does not jump: what machines' deadlines are measured with, whatever happens to the computer's own clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

LOOK_S = 1.0
"""How often it is looked whether the computer's clock was set."""
JUMP_S = 2.0
"""By so much at least: less is how clocks are adjusted all the time."""
log = structlog.get_logger(room="driver")


def steady_clock() -> Callable[[], float]:
    """A clock in seconds that begins at the Unix time of now, and then never jumps nor runs backwards.

    Times on record, certificates and tokens go by the computer's clock; a deadline that did would be over when that is
    set forward by an hour, and would not come when it is set back.
    """
    began = _offset_s()
    return lambda: began + time.monotonic()


async def say_jumps() -> None:
    """Say when the computer's clock was set, until cancelled."""
    before = _offset_s()
    while True:
        await asyncio.sleep(LOOK_S)
        now = _offset_s()
        if abs(now - before) >= JUMP_S:
            direction = "forward" if now > before else "back"
            log.warning(
                f"this machine's clock was set {direction}; deadlines do not follow it, certificates, tokens and times "
                "on record do",
                seconds=round(abs(now - before), 1),
            )
        before = now


def _offset_s() -> float:
    return time.time() - time.monotonic()
