"""Which nodes are adversaries for a drill, by their own word: it is put on record, and read from there."""

from __future__ import annotations

from collections.abc import Iterable

from covey.storage.record.contract import EventRecord

DRILL_JOINED, DRILL_LEFT = "drill-joined", "drill-left"
"""Kinds of events of a node; their detail is `{"attack": NAME}`."""
MAX_NAME = 100
"""Of an attack's name more is not kept."""
NEWEST = 10_000
"""So many events are looked through for drills where the coordinator does not run."""


def drill_event(node: str, before: str, now: str, at: float) -> EventRecord | None:
    """What is to be put on record where a node connects; None: nothing.

    Args:
        node: Its id.
        before: With which attack it connected before; empty: none.
        now: With which attack it connects; empty: none.
        at: Unix time.
    """
    if not before and not now:
        return None
    return EventRecord(at, DRILL_JOINED if now else DRILL_LEFT, node=node, detail={"attack": now or before})


def drills_on_record(newest_first: Iterable[EventRecord]) -> dict[str, str]:
    """Node to the attack with which it last joined, from events; only those that have not left since."""
    last: dict[str, EventRecord] = {}
    for event in newest_first:
        if event.kind in (DRILL_JOINED, DRILL_LEFT):
            last.setdefault(event.node, event)
    return {node: str(event.detail["attack"]) for node, event in last.items() if event.kind == DRILL_JOINED}
