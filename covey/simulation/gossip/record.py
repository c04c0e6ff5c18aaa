"""The record of a virtual node that is killed and comes back: in memory, as its daemon would have it on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from typing_extensions import override

from covey.gossip.ledger import Batch
from covey.node.gossip.ports import Noted, Record, Saved, Snapshot
from covey.node.gossip.state import machine_from_text, machine_to_text
from covey.simulation.gossip.models import Model


class NoRecord(Record[Model]):
    """Of a node that is never started again."""

    @override
    def note(self, event: Noted, body: Model | None, then: Callable[[], None]) -> None:
        then()

    @override
    def publish(self, snapshot: Snapshot[Model], batches: Sequence[Batch], then: Callable[[], None]) -> None:
        then()

    @override
    def when_durable(self, then: Callable[[], None]) -> None:
        then()


class VirtualRecord(NoRecord):
    """The newest publication, and what was noted since; what is given is on record at once."""

    def __init__(self) -> None:
        self._newest: tuple[str, Snapshot[Model]] | None = None
        self._noted: list[tuple[Noted, Model | None]] = []

    @property
    def saved(self) -> Saved[Model]:
        """What a restart begins with."""
        if self._newest is None:
            return Saved(None, tuple(self._noted))
        text, snapshot = self._newest
        return Saved(replace(snapshot, machine=machine_from_text(text)), tuple(self._noted))

    @override
    def note(self, event: Noted, body: Model | None, then: Callable[[], None]) -> None:
        self._noted.append((event, body))
        then()

    @override
    def publish(self, snapshot: Snapshot[Model], batches: Sequence[Batch], then: Callable[[], None]) -> None:
        self._newest, self._noted = (machine_to_text(snapshot.machine), snapshot), []
        then()
