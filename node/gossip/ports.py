"""What a node's part in a gossip run needs of the world, and what it is to the wire.

The executor does its work through `Post`, `Labour`, `Record` and `Clock`: nothing in it waits. What takes time calls
back when it is done. `B` is what stands for a model: an artifact in a daemon, a file in simulations, a vector in tests.
The wire between daemons is `Peers`, and gives what comes to a `Receiver`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from covey.artifact import Artifact
from covey.gossip.agreement import OrderTold, WaysMeasured
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.push_sum.events import (
    Arrived,
    HalfAsked,
    PeerEvicted,
    PeerJoined,
    PeerLeft,
    PeerSuspected,
    PeerTrusted,
    Progressed,
    StatementsShown,
)
from covey.gossip.push_sum.machine import PushSum
from covey.gossip.topologies.contract import LinkQuality
from covey.node.models.newest import JoinedModel

B = TypeVar("B")
B_in = TypeVar("B_in", contravariant=True)
T = TypeVar("T")
Said = Progressed | PeerLeft | HalfAsked
"""What a node says to a peer beside batches; each is said again, so one that is lost does no harm."""
Told = Said | WaysMeasured | OrderTold
"""That, and what nodes with a measured topology say: nothing to the machine."""
Heard = Told | StatementsShown | PeerJoined | PeerSuspected | PeerTrusted | PeerEvicted
"""What the wire has to tell: what a peer said, and what is known of it."""
Noted = Arrived | PeerJoined | PeerEvicted | PeerLeft
"""What is written to the record before it is answered."""


class Peers(Protocol):
    """The wire between this node and its peers. Any method may be called at any time, on the event loop."""

    def tell(self, peer: Incarnation, event: Told) -> None:
        """Say something small; `event.peer` is this node. Without a connection it is dropped. Never waits."""
        ...

    def quality(self) -> Mapping[str, LinkQuality]:
        """What was measured of the way to each peer, by name; only where both figures are known."""
        ...

    async def send(self, batch: Batch, step: int, body: Artifact) -> None:
        """Bring one whole batch over to `batch.peer`, from where it broke before.

        Ends when the peer has it durably. Cancelling gives this try up; the same batch may be sent again later. The
        body is one of this node's files (`Files.path(body.digest)`), and stays there until the call has ended.

        Args:
            batch: To whom, its number on the edge, its units.
            step: In which it was published.
            body: The sender's model, the same for all batches of a step.

        Raises:
            TransferError: It broke off, or there is no connection; sent again, it goes on.
            LedgerError: The peer refuses this batch; the message has its reason.
        """
        ...


class ModelSource(Protocol):
    """Where a node that joins has a model from; `covey.node.peers.network.PeerNetwork`."""

    async def bring_model(self) -> JoinedModel:
        """A peer's newest model, chunk by chunk from all peers that have it.

        Raises:
            TransferError: There is none to be had.
            StoreError: The disk is full, or refuses.
        """
        ...


class Receiver(Protocol):
    """What the wire gives what comes from peers. Who `peer` is comes from its certificate and its hello."""

    async def arrived(self, peer: Incarnation, sequence: int, units: int, step: int, body: Artifact) -> None:
        """A batch came: its body is whole, checked against its digests, and among this node's files.

        When this returns, the batch is durable, or was so before: then the wire acknowledges it. The wire holds the
        file until then (`covey.node.models.holders`): by then the receiver does, if it needs it.

        Raises:
            LedgerError: It cannot be; the message is for the peer. The wire passes it on as a refusal.
            StoreError: The record cannot be written now; the peer sends again later.
        """
        ...

    def heard(self, peer: Incarnation, event: Heard) -> None:
        """A peer said something, or something is known of it; `event.peer` is that peer. Never waits."""
        ...


class Post(Protocol[B_in]):
    """Messages to peers, as the executor gives them; they may be lost."""

    def tell(self, peer: Incarnation, event: Said) -> None:
        """As `Peers.tell`."""
        ...

    def send(self, batch: Batch, step: int, body: B_in) -> None:
        """Put a batch on its way; the executor is told `Acknowledged` when it is there. Given again, it goes once."""
        ...

    def acknowledge(self, peer: Incarnation, sequence: int) -> None:
        """A peer's batch is on record here, perhaps since long."""
        ...

    def refuse(self, peer: Incarnation, sequence: int, reason: str) -> None:
        """A peer's batch cannot be."""
        ...


@dataclass(frozen=True)
class Moment:
    """What work with a node's model may know of its machine.

    Attributes:
        step: Which, from 0; steps that only average are not counted.
        weight: The node's mass, 1 is what it began with: before it gives some away, and with what is mixed in.
        evictions: How many incarnations it knows to be evicted.
        leaves: Whether what comes out is handed over to a peer, for good.
        given: Of the mass that the node keeps, how many times as much it gives; 0: nothing, or all that it has, so that
            what a codec loses could stay nowhere.
        is_whole: Whether what is sent must be a model, not a difference from what was sent before.
        peers: Who else takes part.
    """

    step: int
    weight: float = 1.0
    evictions: int = 0
    leaves: bool = False
    given: float = 0.0
    is_whole: bool = False
    peers: tuple[Incarnation, ...] = ()


@dataclass(frozen=True)
class Piece(Generic[B]):
    """What is mixed in.

    Attributes:
        body: What came.
        part: Of the whole mixture.
        source: Who sent it; None: nobody that matters.
        step: In which it was published.
    """

    body: B
    part: float
    source: Incarnation | None = None
    step: int = 0

    @property
    def sender(self) -> str:
        """The source, for a job."""
        return str(self.source or "")


@dataclass(frozen=True)
class State(Generic[B]):
    """What a node has learned.

    Attributes:
        model: The model, and the vectors that travel with it: the body of what is sent.
        kept: What stays with the node, vectors of the protocol or what it has of its peers; None: nothing, or not yet.
        coded: The body of what is sent after training, where that is not the model: encoded, or parts of a method.
    """

    model: B
    kept: B | None = None
    coded: B | None = None

    @property
    def body(self) -> B:
        """What is sent."""
        return self.model if self.coded is None else self.coded

    @property
    def files(self) -> list[B]:
        """All of them, as far as they are there."""
        return [file for file in (self.model, self.kept, self.coded) if file is not None]


class Labour(Protocol[B, T]):
    """Work with models. Each call begins work and returns at once; `then` is called when it is done.

    `T` is what a training came to; what is handed out is the caller's to `release`.
    """

    def train(self, step: int, state: State[B], then: Callable[[T], None]) -> None:
        """Do a local training, beginning at what the node has; `step` counts trainings from 0."""
        ...

    def apply(
        self, moment: Moment, state: State[B], trained: T | None, scale: float, then: Callable[[State[B]], None]
    ) -> None:
        """What a node has after `scale` times what a training did (None: there was none), with a body to be sent.

        Where the run has a codec, and some of the mass is given, the body is encoded; what is lost stays here.
        """
        ...

    def mix(
        self, moment: Moment | None, state: State[B], portions: Sequence[Piece[B]], then: Callable[[State[B]], None]
    ) -> None:
        """What a node has with each portion's part of the whole mixed in, as the run's protocol does it.

        Without a moment it is a mean of models, and no vectors: the node has not begun.
        """
        ...

    def hold(self, model: B) -> B:
        """One more needs this model."""
        ...

    def release(self, model: B) -> None:
        """One less needs this model."""
        ...


@dataclass(frozen=True)
class Snapshot(Generic[B]):
    """A node at the moment of a publication: all that a restart begins with.

    Attributes:
        step: Whose publication it is.
        machine: The machine, which goes on: a record takes its state down at once (`covey.node.gossip.state`).
        model: The node's model, which is the body of the step's batches where that is not encoded.
        bodies: Of publications that are still on their way, by step; the newest is among them.
        inbox: What came and is not mixed in yet, by sender and number.
        kept: The vectors that stay with the node; None: there are none.
    """

    step: int
    machine: PushSum
    model: B
    bodies: Mapping[int, B]
    inbox: Mapping[tuple[Incarnation, int], B]
    kept: B | None = None

    @property
    def state(self) -> State[B]:
        """What the node had learned."""
        return State(self.model, self.kept)

    @property
    def all_bodies(self) -> list[B]:
        """Every file that it needs, each as often as it is named."""
        return [*self.state.files, *self.bodies.values(), *self.inbox.values()]


@dataclass(frozen=True)
class Saved(Generic[B]):
    """What a record has: the newest snapshot, and what was noted since, in order; None: nothing was published yet."""

    snapshot: Snapshot[B] | None = None
    noted: Sequence[tuple[Noted, B | None]] = ()


class Record(Protocol[B]):
    """A node's record of its run. Writes happen in the order of the calls; `then` is called when one is durable."""

    def note(self, event: Noted, body: B | None, then: Callable[[], None]) -> None:
        """Something that a restart needs, with the body of a batch that came."""
        ...

    def publish(self, snapshot: Snapshot[B], batches: Sequence[Batch], then: Callable[[], None]) -> None:
        """A snapshot in one write, in place of the one before and of all that was noted until now.

        Args:
            snapshot: Of this moment.
            batches: What the step gives, for the history.
            then: Called when all of it is durable.
        """
        ...

    def when_durable(self, then: Callable[[], None]) -> None:
        """Call when all that was given until now is durable: at once, where nothing waits."""
        ...


class Clock(Protocol):
    """Time."""

    def now(self) -> float:
        """Seconds; never goes back."""
        ...
