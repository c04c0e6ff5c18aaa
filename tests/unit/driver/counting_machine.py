"""A machine that counts what it is told."""

from __future__ import annotations

from covey.machines.protocol import NodeJoined, Report


class CountingMachine:
    """Is done after so many events, and reports each node that joins."""

    def __init__(self, until):
        self.until, self.wake_at = until, None
        self.taken = []

    @property
    def done(self):
        return len(self.taken) >= self.until

    def handle(self, event):
        if isinstance(event, NodeJoined) and not event.node:
            raise ValueError("no node")
        self.taken.append(event)
        return [Report(f"joined {event.node}")] if isinstance(event, NodeJoined) else []
