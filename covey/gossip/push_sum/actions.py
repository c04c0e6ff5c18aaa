"""What a node's push-sum machine asks for, to be done in order."""

from __future__ import annotations

from dataclasses import dataclass

from covey.gossip.ledger import Batch, Incarnation


@dataclass(frozen=True)
class Train:
    """Do a step's local training at the model z, with the learning rate times `scale`; then `Trained`."""

    step: int
    scale: float = 1.0


@dataclass(frozen=True)
class Plan:
    """Say who gets what in a step, by topology and mixing weights among these; then `Planned`."""

    step: int
    peers: tuple[Incarnation, ...]


@dataclass(frozen=True)
class Publish:
    """Make the model z and the machine's state durable, in one; then `Published`. The model is every batch's body."""

    step: int
    batches: tuple[Batch, ...]
    kept: int
    """Units that stay with the node."""


@dataclass(frozen=True)
class Send:
    """Send a batch, again and again until it is acknowledged; then `Acknowledged`."""

    batch: Batch
    step: int
    """Of the publication whose model is the body."""


@dataclass(frozen=True)
class Accept:
    """Write a batch that arrived to the record, then acknowledge it."""

    peer: Incarnation
    sequence: int


@dataclass(frozen=True)
class AcknowledgeAgain:
    """A batch came twice: acknowledge it, and drop what came."""

    peer: Incarnation
    sequence: int


@dataclass(frozen=True)
class Refuse:
    """Tell a peer that its batch cannot be, and drop what came."""

    peer: Incarnation
    sequence: int
    reason: str


@dataclass(frozen=True)
class Portion:
    """Mass that is mixed in, and whose model it comes with.

    In a `Mix` where the receiver weighs, the units are the weights, of the sum of all and `kept`.
    """

    source: Incarnation
    """The node itself for mass that it took back: its own publication is the body then."""
    number: int
    """Of the batch; of the step, for the node's own."""
    units: int
    step: int
    """In which it was sent."""


@dataclass(frozen=True)
class Mix:
    """z := (kept z + the portions' units times their models) / (kept + all units); then `Mixed`."""

    step: int
    kept: int
    portions: tuple[Portion, ...]


@dataclass(frozen=True)
class Announce:
    """Tell peers where this node is (`Progressed`)."""

    step: int
    to: tuple[Incarnation, ...] = ()
    """Whom; empty: all."""
    is_finished: bool = False


@dataclass(frozen=True)
class Report:
    """What is waited for, for people; empty: nothing."""

    reason: str


@dataclass(frozen=True)
class Retire:
    """This record is older than what this node signed: the incarnation is to be evicted, and the node to join anew."""

    reason: str


@dataclass(frozen=True)
class Finish:
    """The node's part is over: all steps are done, or it left."""

    reason: str


Action = Train | Plan | Publish | Send | Accept | AcknowledgeAgain | Refuse | Mix | Announce | Report | Retire | Finish
