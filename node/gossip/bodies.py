"""Which models a node needs: its own publications, what came, and what its record begins a restart with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum.actions import Portion
from covey.gossip.push_sum.machine import PushSum
from covey.node.gossip.ports import Labour, Snapshot

B = TypeVar("B")


class Bodies(Generic[B]):
    """Holds models as long as the machine or the record needs them, and lets go of them then.

    Args:
        labour: Where models are held and released.
    """

    def __init__(self, labour: Labour[B, Any]) -> None:
        self._labour = labour
        self.own: dict[int, B] = {}
        """By the step of the publication."""
        self.inbox: dict[tuple[Incarnation, int], B] = {}
        """By sender and number."""
        self._on_record: list[B] = []

    def restore(self, snapshot: Snapshot[B] | None, first: B) -> None:
        """Take over what a record has; before anything is published, that is the first model."""
        hold = self._labour.hold
        if snapshot is None:
            self._on_record = [hold(first)]
            return
        self.own = {step: hold(body) for step, body in snapshot.bodies.items()}
        self.inbox = {key: hold(body) for key, body in snapshot.inbox.items()}
        self._on_record = [hold(body) for body in snapshot.all_bodies]

    def published(self, step: int, body: B) -> None:
        """A step was published; what is handed over in leaving is published once more under the same step."""
        before = self.own.pop(step, None)
        self.own[step] = self._labour.hold(body)
        if before is not None:
            self._labour.release(before)

    def came(self, peer: Incarnation, sequence: int, body: B) -> None:
        """A batch was accepted: it is needed until it is mixed in, and until a snapshot without it is on record."""
        self.inbox[peer, sequence] = self._labour.hold(body)
        self._on_record.append(self._labour.hold(body))

    def of(self, portion: Portion, me: Incarnation) -> B:
        """The model that mass comes with."""
        is_own = portion.source == me
        return self.own[portion.number] if is_own else self.inbox[portion.source, portion.number]

    def recorded(self, snapshot: Snapshot[B]) -> Callable[[], None]:
        """A snapshot goes to the record; what is returned is to be called when it is there."""
        superseded = self._on_record
        self._on_record = [self._labour.hold(body) for body in snapshot.all_bodies]
        return lambda: self._release(superseded)

    def tidy(self, machine: PushSum) -> None:
        """Let go of what the machine needs no more."""
        needed = {(portion.source, portion.number) for portion in machine.exchange.pending}
        taken_back = {number for source, number in needed if source == machine.me}
        steps = {machine.step, *machine.exchange.published.values(), *taken_back}
        self._release([self.own.pop(step) for step in [step for step in self.own if step not in steps]])
        self._release([self.inbox.pop(key) for key in [key for key in self.inbox if key not in needed]])

    def drop_all(self) -> None:
        """The node is gone."""
        everything = [*self.own.values(), *self.inbox.values(), *self._on_record]
        self.own, self.inbox, self._on_record = {}, {}, []
        self._release(everything)

    def _release(self, bodies: Iterable[B]) -> None:
        for body in bodies:
            self._labour.release(body)
