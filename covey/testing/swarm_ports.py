"""The ports of a push-sum node in one process: a disk, a clock, work on vectors, messages to the others.

What a node has on its disk is kept apart from what it has in memory, so that a crash loses just what a crash loses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.protocols.contract import Algebra, Context, Received
from covey.gossip.protocols.contract import State as Learned
from covey.gossip.protocols.runs import protocol_of
from covey.gossip.push_sum import events as ev
from covey.node.gossip.ports import Clock, Labour, Moment, Noted, Piece, Post, Record, Said, Saved, Snapshot, State
from covey.node.gossip.state import machine_from_text, machine_to_text
from covey.spec import GossipSpec

Vector = npt.NDArray[np.floating[Any]]
Training = Callable[[str, int, Vector, float], Vector]
"""(node, step, z, scale) -> the new z."""


def no_training(node: str, step: int, z: Vector, scale: float) -> Vector:
    """Averaging alone."""
    return z


@dataclass(frozen=True)
class Message:
    """Something on its way between two incarnations."""

    sender: Incarnation
    receiver: Incarnation
    event: Any
    body: Vector | None = None


class SwarmClock(Clock):
    """Stands still until a test says another time."""

    def __init__(self) -> None:
        self.time = 0.0

    @override
    def now(self) -> float:
        return self.time


class Disk(Record[Vector]):
    """What survives a crash of one node.

    Args:
        is_slow: Writes wait until `write` is called, and are lost in a crash; else they are made at once.
        keeps: Whether anything is kept at all: where nobody crashes that is in vain.
    """

    def __init__(self, is_slow: bool = False, keeps: bool = True) -> None:
        self._newest: tuple[str, Snapshot[Vector]] | None = None
        self._noted: tuple[tuple[Noted, Vector | None], ...] = ()
        self.is_slow, self._keeps = is_slow, keeps
        self.waiting: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()

    def copy(self) -> Disk:
        """As a backup has it: later writes do not change it."""
        copied = Disk(self.is_slow)
        copied._newest, copied._noted = self._newest, self._noted
        return copied

    @property
    def saved(self) -> Saved[Vector]:
        """What a restart begins with."""
        if self._newest is None:
            return Saved(None, self._noted)
        text, snapshot = self._newest
        return Saved(replace(snapshot, machine=machine_from_text(text)), self._noted)

    @override
    def note(self, event: Noted, body: Vector | None, then: Callable[[], None]) -> None:
        def save() -> None:
            self._noted = (*self._noted, (event, body))

        self._put(save, then)

    @override
    def publish(self, snapshot: Snapshot[Vector], batches: Sequence[Batch], then: Callable[[], None]) -> None:
        text = machine_to_text(snapshot.machine) if self._keeps else ""

        def save() -> None:
            self._newest, self._noted = (text, snapshot), ()

        self._put(save, then)

    @override
    def when_durable(self, then: Callable[[], None]) -> None:
        self._put(lambda: None, then)

    def _put(self, save: Callable[[], None], then: Callable[[], None]) -> None:
        if not self._keeps:
            then()
            return
        self.waiting.append((save, then))
        if not self.is_slow:
            self.write()

    def write(self) -> None:
        """Make the oldest write that waits."""
        save, then = self.waiting.popleft()
        save()
        then()


class ArrayAlgebra(Algebra[Vector]):
    """Over arrays, in their own precision: with float64, protocols are computed in float64."""

    @override
    def combination(self, terms: Sequence[tuple[Vector, float]]) -> Vector:
        total: Vector = np.zeros(())
        for vector, factor in terms:
            total = total + vector * factor if factor else total
        return total

    @override
    def distances(self, origin: Vector, others: Sequence[Vector]) -> list[float]:
        return [float(np.linalg.norm(other.astype(np.float64) - origin)) for other in others]

    @override
    def trimmed_mean(self, vectors: Sequence[Vector], trimmed: int) -> Vector:
        mean: Vector = np.sort(np.stack(vectors), axis=0)[trimmed : len(vectors) - trimmed].mean(axis=0)
        return mean


class VectorLabour(Labour[Vector, tuple[int, Vector]]):
    """Work that waits in a queue until the test lets it be done.

    Args:
        node: Whose.
        training: What a step does to a model.
        spec: The run, whose protocol mixes; None: the weighted mean.
        codec: What becomes of a model where it is sent; None: nothing.
    """

    def __init__(
        self,
        node: str,
        training: Training,
        spec: GossipSpec | None = None,
        codec: Callable[[Vector], Vector] | None = None,
    ) -> None:
        self._node, self._training, self._spec, self._codec = node, training, spec, codec
        self.queue: deque[Callable[[], None]] = deque()
        self.on_mixed: Callable[[int, Vector, Sequence[Piece[Vector]]], None] = lambda step, model, pieces: None
        """Told of each mixture: the step, the node's own model, what came."""

    @override
    def train(self, step: int, state: State[Vector], then: Callable[[tuple[int, Vector]], None]) -> None:
        self.queue.append(lambda: then((step, state.model)))

    @override
    def apply(
        self,
        moment: Moment,
        state: State[Vector],
        trained: tuple[int, Vector] | None,
        scale: float,
        then: Callable[[State[Vector]], None],
    ) -> None:
        def work() -> None:
            model = self._after(state.model, trained, scale)
            if self._codec is None or not moment.given:
                then(State(model))
                return
            body = self._codec(model)
            then(State(model + moment.given * (model - body), coded=body))

        self.queue.append(work)

    def _after(self, model: Vector, trained: tuple[int, Vector] | None, scale: float) -> Vector:
        if trained is None:
            return model.copy()
        step, base = trained
        stepped = self._training(self._node, step, base, scale)
        return (
            stepped.copy() if model is base else model + (stepped - base)
        )  # something may have been mixed in meanwhile

    @override
    def mix(
        self,
        moment: Moment | None,
        state: State[Vector],
        portions: Sequence[Piece[Vector]],
        then: Callable[[State[Vector]], None],
    ) -> None:
        def work() -> None:
            step = moment.step if moment is not None else 0
            self.on_mixed(step, state.model, portions)
            mixed = self._mixed(step, state.model, portions)
            then(State(mixed.astype(state.model.dtype)))

        self.queue.append(work)

    def _mixed(self, step: int, model: Vector, portions: Sequence[Piece[Vector]]) -> Vector:
        if self._spec is None:
            mixed = model * (1 - sum(piece.part for piece in portions))
            for piece in portions:
                mixed = mixed + piece.body * piece.part
            return mixed
        protocol = protocol_of(self._spec.gossip, allow_path=True)
        vectors = dict.fromkeys(protocol.travels, np.zeros_like(model))
        received = [Received(piece.part, piece.body, vectors) for piece in portions]
        update = protocol.mix(Learned(model), received, Context(ArrayAlgebra(), self._spec, step))
        return model + update.change

    @override
    def hold(self, model: Vector) -> Vector:
        return model

    @override
    def release(self, model: Vector) -> None:
        """Memory is freed by itself."""


class SwarmPost(Post[Vector]):
    """Gives messages to the swarm.

    Args:
        me: Whose.
        send: What puts a message on its way.
    """

    def __init__(self, me: Incarnation, send: Callable[[Message], None]) -> None:
        self._me, self._send = me, send

    @override
    def tell(self, peer: Incarnation, event: Said) -> None:
        self._send(Message(self._me, peer, event))

    @override
    def send(self, batch: Batch, step: int, body: Vector) -> None:
        arrived = ev.Arrived(self._me, batch.sequence, batch.units, step, 0.0, batch.given)
        self._send(Message(self._me, batch.peer, arrived, body))

    @override
    def acknowledge(self, peer: Incarnation, sequence: int) -> None:
        self._send(Message(self._me, peer, ev.Acknowledged(self._me, sequence)))

    @override
    def refuse(self, peer: Incarnation, sequence: int, reason: str) -> None:
        self._send(Message(self._me, peer, ev.Refused(self._me, sequence)))
