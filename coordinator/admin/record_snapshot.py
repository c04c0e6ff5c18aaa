"""Who is enrolled, and how many runs wait: read from the record every few seconds, so that no scrape has to ask it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from covey.coordinator.store_thread import StoreThread
from covey.errors import StoreError
from covey.storage.record.contract import Store

log = structlog.get_logger(room="coordinator")
EVERY_S = 5.0
NEWEST = 500
"""Events that are looked through: more than the enrolment listener can write meanwhile."""


@dataclass
class RecordSnapshot:
    """What the record said when it was last read."""

    nodes: set[str] = field(default_factory=set)
    """Every node that was ever enrolled."""
    queued: int = 0
    """Runs that wait for their turn."""


def take(store: Store, known: set[str]) -> RecordSnapshot:
    """Read the record. Blocking. `known`: nodes from before; counting all nodes' verdicts again would be expensive."""
    enrolled = {e.node for e in store.events(limit=NEWEST) if e.kind == "enrolled" and e.detail.get("role") == "node"}
    return RecordSnapshot(known | enrolled, store.count_runs(("queued",)))


async def keep_snapshot(store: StoreThread, snapshot: RecordSnapshot) -> None:
    """Read the record into `snapshot` again and again until cancelled; while it cannot be read, what was read stays."""
    while True:
        try:
            newest = await store.call(take, store.store, snapshot.nodes)
            snapshot.nodes, snapshot.queued = newest.nodes, newest.queued
        except StoreError as error:
            log.debug("the record cannot be read now", error=str(error))
        await asyncio.sleep(EVERY_S)
