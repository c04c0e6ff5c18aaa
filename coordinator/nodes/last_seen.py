"""When connected nodes were heard last: put on record now and then, for who reads it after a crash."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from covey.coordinator.nodes.sessions import Session, Sessions
from covey.coordinator.store_thread import StoreThread
from covey.errors import StoreError

log = structlog.get_logger(room="coordinator")
EVERY_S = 60.0


def heard_at(session: Session, now: float) -> float:
    """When a node was heard last, in Unix seconds, as `now` is."""
    return now - (time.monotonic() - session.heard_at)


async def keep_seen(store: StoreThread, sessions: Sessions, clock: Callable[[], float]) -> None:
    """Put it on record until cancelled; while the record is away, it stays as it is."""
    while True:
        await asyncio.sleep(EVERY_S)
        times = {node: heard_at(session, clock()) for node, session in sessions.live().items()}
        try:
            await store.call(store.store.note_seen, times)
        except StoreError as error:
            log.debug("the record cannot be written now", error=str(error))
