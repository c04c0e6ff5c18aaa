"""Messages between peers as plain values, and back. What comes is from anybody: what cannot be raises ValueError."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from covey.gossip.agreement import OrderTold, WaysMeasured
from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum.events import HalfAsked, PeerLeft, Progressed
from covey.gossip.receipts import Proof, SignedMass
from covey.gossip.topologies.contract import LinkQuality
from covey.node.gossip.farewells import KNOWS_ALL
from covey.node.gossip.ports import Told
from covey.node.gossip.receipts import Shown
from covey.node.peers.roster import MAX_PEERS
from covey.node.peers.vitals import Beat
from covey.protos import peer_pb2 as pb
from covey.wire.evictions import SignedNotice

WIRE = 1
"""The version of the messages between peers."""
MAX_SEQUENCE = 1 << 53
MAX_STEP = 1 << 31
MAX_AGE_S = 3600.0
_SHOWN: tuple[Literal["gave", "had", "took"], ...] = ("gave", "had", "took")


@dataclass(frozen=True)
class Hello:
    """What a side says of itself first.

    Attributes:
        wire: The version of the messages that it speaks.
        version: Of Covey, for people.
        run: Which run.
        incarnation: Which life of it this is, from 1.
        specification: SHA-256 (hex) of the run's specification.
        minted: The units that it began with.
    """

    wire: int
    version: str
    run: str
    incarnation: int
    specification: str
    minted: int


def hello_message(hello: Hello) -> pb.PeerMessage:
    """A hello as a message."""
    return pb.PeerMessage(hello=pb.PeerHello(**vars(hello)))


def hello_from(message: pb.PeerMessage) -> Hello | None:
    """The hello that a message is; None: it is something else. Texts are cut."""
    if message.WhichOneof("kind") != "hello":
        return None
    hello = message.hello
    return Hello(
        hello.wire, hello.version[:50], hello.run[:200], hello.incarnation, hello.specification[:64], hello.minted
    )


def said_message(event: Told) -> pb.PeerMessage:
    """What a node says of itself as a message."""
    if isinstance(event, PeerLeft):
        return pb.PeerMessage(left=pb.PeerHasLeft(applied=event.applied))
    if isinstance(event, HalfAsked):
        return pb.PeerMessage(half_asked=pb.HalfAsked())
    if isinstance(event, WaysMeasured):
        ways = [pb.PeerWay(to=name, **vars(way)) for name, way in event.ways.items()]
        return pb.PeerMessage(ways=pb.PeerWays(ways=ways))
    if isinstance(event, OrderTold):
        return pb.PeerMessage(order=pb.PeerOrder(step=event.step, nodes=event.nodes))
    return pb.PeerMessage(
        progress=pb.PeerProgress(
            step=event.step,
            sequence=event.sequence,
            acknowledged=event.acknowledged,
            applied=event.applied,
            is_finished=event.is_finished,
            farewell=event.farewell,
        )
    )


def said_from(peer: Incarnation, message: pb.PeerMessage, now: float) -> Told | None:
    """What a peer says of itself; None: the message is something else.

    Raises:
        ValueError: A number in it cannot be.
    """
    match message.WhichOneof("kind"):
        case "left":
            return PeerLeft(peer, _sequence(message.left.applied), now)
        case "half_asked":
            return HalfAsked(peer, now)
        case "progress":
            progress = message.progress
            if not -1 <= progress.step < MAX_STEP:
                raise ValueError(f"step {progress.step} cannot be")
            sequence, acknowledged, applied = map(
                _sequence, (progress.sequence, progress.acknowledged, progress.applied)
            )
            if progress.farewell > KNOWS_ALL:
                raise ValueError(f"{progress.farewell} cannot be the level of a farewell")
            where = (peer, progress.step, sequence, acknowledged, applied, progress.is_finished)
            return Progressed(*where, now, progress.farewell)
        case "ways":
            return WaysMeasured(peer, {way.to: _way(way) for way in message.ways.ways[:MAX_PEERS]})
        case "order":
            order = message.order
            if order.step >= MAX_STEP or len(order.nodes) > MAX_PEERS:
                raise ValueError(f"an order of {len(order.nodes)} nodes from step {order.step} on cannot be")
            return OrderTold(peer, order.step, tuple(order.nodes))
        case _:
            return None


def _way(way: pb.PeerWay) -> LinkQuality:
    figures = way.bytes_per_s, way.round_trip_s
    if not all(math.isfinite(figure) and figure >= 0 for figure in figures):
        raise ValueError(f"a way of {figures} bytes a second, and seconds there and back, cannot be")
    return LinkQuality(*figures)


def _sequence(value: int) -> int:
    if value >= MAX_SEQUENCE:
        raise ValueError(f"{value} cannot be the number of a batch")
    return value


def beat_message(beat: Beat) -> pb.PeerBeat:
    """A sign of life as a message."""
    return pb.PeerBeat(number=beat.number, echo=beat.echo, echo_age_us=int(1e6 * beat.echo_age_s))


def beat_from(message: pb.PeerBeat) -> Beat:
    """A peer's sign of life; its times are cut to what is sensible."""
    return Beat(message.number, message.echo, min(message.echo_age_us / 1e6, MAX_AGE_S))


def eviction_message(notice: SignedNotice) -> pb.SignedEviction:
    """A notice as a message."""
    return pb.SignedEviction(**vars(notice))


def eviction_from(message: pb.SignedEviction) -> SignedNotice:
    """The notice that a message is; nothing of it is checked yet."""
    return SignedNotice(message.statement, message.signature, message.certificate)


def mass_message(signed: SignedMass) -> pb.SignedMass:
    """A signed statement about an edge as a message."""
    return pb.SignedMass(**vars(signed))


def mass_from(message: pb.SignedMass) -> SignedMass:
    """The statement that a message is; nothing of it is checked yet."""
    return SignedMass(message.statement, message.signature, message.certificate)


def proof_message(proof: Proof) -> pb.PeerMessage:
    """What proves that a node gave a batch that cannot be, as a message."""
    before = mass_message(proof.before) if proof.before is not None else None
    return pb.PeerMessage(proof=pb.MassProof(before=before, refused=mass_message(proof.refused)))


def proof_from(message: pb.MassProof) -> Proof:
    """The proof that a message is; nothing of it is checked yet."""
    return Proof(mass_from(message.before) if message.HasField("before") else None, mass_from(message.refused))


def farewell_message(signed: SignedMass) -> pb.PeerMessage:
    """What a leaver signed as a message."""
    return pb.PeerMessage(farewell=mass_message(signed))


def shown_message(shown: Shown) -> pb.PeerMessage:
    """The statements that a new link begins with as a message."""
    signed = {name: mass_message(each) for name, each in vars(shown).items() if each is not None}
    return pb.PeerMessage(statements=pb.PeerStatements(**signed))


def shown_from(message: pb.PeerStatements) -> Shown:
    """The statements that a message has; nothing of them is checked yet."""
    return Shown(*(mass_from(getattr(message, name)) if message.HasField(name) else None for name in _SHOWN))
