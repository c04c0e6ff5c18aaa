"""What a node's push-sum machine is told. Times are seconds of one clock that the caller chooses."""

from __future__ import annotations

from dataclasses import dataclass

from covey.gossip.ledger import Incarnation


@dataclass(frozen=True)
class Begun:
    """The node takes part from now on, or goes on after a restart."""

    now: float


@dataclass(frozen=True)
class Trained:
    """The local steps of a step are done: the model z has changed."""

    step: int
    now: float


@dataclass(frozen=True)
class Share:
    """What part of its mass a node gives to a peer."""

    peer: Incarnation
    numerator: int
    denominator: int


@dataclass(frozen=True)
class Planned:
    """Who gets what in a step, and from whom something is to come: the answer to `Plan`."""

    step: int
    shares: tuple[Share, ...]
    senders: tuple[Incarnation, ...]
    weights: tuple[Share, ...] = ()
    """Where the receiver weighs: what each sender's model counts for; the rest is the node's own."""


@dataclass(frozen=True)
class Published:
    """Model, ledger and the batches of a step are durable."""

    step: int
    now: float


@dataclass(frozen=True)
class Arrived:
    """A batch of a peer came, whole and checked against its digest."""

    peer: Incarnation
    sequence: int
    units: int
    step: int
    now: float
    given: int | None = None
    """What its sender signed that the edge has carried in all, with this batch; None: it signed nothing."""


@dataclass(frozen=True)
class Acknowledged:
    """A peer has a batch durably."""

    peer: Incarnation
    sequence: int


@dataclass(frozen=True)
class Refused:
    """A peer says that a batch of this node cannot be."""

    peer: Incarnation
    sequence: int


@dataclass(frozen=True)
class Mixed:
    """What had arrived is part of the model now."""

    step: int
    now: float


@dataclass(frozen=True)
class Progressed:
    """A peer says where it is: it sends nothing more of steps up to `step` but what it sent up to batch `sequence`."""

    peer: Incarnation
    step: int
    sequence: int
    """Of its newest batch to this node."""
    acknowledged: int
    """Number of the newest batch of its own that this node acknowledged, as far as it knows."""
    applied: int
    """Number of the newest batch of this node that it has."""
    is_finished: bool
    now: float
    farewell: int = 0
    """How far both know that they are through, as `covey.node.gossip.farewells` says; nothing to the machine."""


@dataclass(frozen=True)
class StatementsShown:
    """A peer shows the newest statements about their edges that this node signed; the wire has checked them."""

    peer: Incarnation
    given: int
    """Number of the newest batch that this node signed to have given the peer; 0: none."""
    had: int
    """Number of the newest batch that this node signed to have had of the peer; 0: none."""
    now: float


@dataclass(frozen=True)
class HalfAsked:
    """A peer that joined without mass asks for half of this node's."""

    peer: Incarnation
    now: float


@dataclass(frozen=True)
class PeerJoined:
    """A peer takes part from now on."""

    peer: Incarnation
    minted: int
    """The units that it begins with: 0 where a neighbour gives it some of its own."""
    now: float


@dataclass(frozen=True)
class PeerSuspected:
    """A peer shows no sign of life: nothing is sent to it, nor waited for, until it does."""

    peer: Incarnation
    now: float


@dataclass(frozen=True)
class PeerTrusted:
    """A suspected peer shows signs of life again."""

    peer: Incarnation
    now: float


@dataclass(frozen=True)
class PeerEvicted:
    """A peer's incarnation is out for good, by a signed notice."""

    peer: Incarnation
    now: float


@dataclass(frozen=True)
class PeerLeft:
    """A peer left in order: it handed over all its mass, and takes nothing any more."""

    peer: Incarnation
    applied: int
    """Number of the newest batch of this node that it had, as it says."""
    now: float
    signed: int = 0
    """Number of the newest batch of this node under which this node holds its signature that it had it; 0: none."""


@dataclass(frozen=True)
class LeaveAsked:
    """The node is to leave in order."""

    now: float


Event = (
    Begun
    | Trained
    | Planned
    | Published
    | Arrived
    | Acknowledged
    | Refused
    | Mixed
    | Progressed
    | StatementsShown
    | HalfAsked
    | PeerJoined
    | PeerSuspected
    | PeerTrusted
    | PeerEvicted
    | PeerLeft
    | LeaveAsked
)
DURABLE = (Arrived, PeerJoined, PeerEvicted, PeerLeft)
"""What a node writes to its record before it answers. With the newest publication this is all that a restart needs."""
