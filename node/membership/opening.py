"""When a node's hours begin, its coordinator hears of it: what the node declined before, it is asked for again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from covey.node.operator.hours import Hours

log = structlog.get_logger(room="node")
LOOK_S = 5.0
"""How often the clock is looked at."""


async def keep_hours(hours: Hours, on_open: Callable[[], object], now: Callable[[], float] = time.time) -> None:
    """Say whenever the hours begin, until cancelled.

    Args:
        hours: The operator's.
        on_open: Called then.
        now: Unix time in seconds.
    """
    were_open = hours.include(now())
    log.info("this node has hours", hours=hours.text, are_now=were_open)
    while True:
        await asyncio.sleep(LOOK_S)
        are_open = hours.include(now())
        if are_open and not were_open:
            log.info("this node's hours begin", hours=hours.text)
            on_open()
        were_open = are_open
