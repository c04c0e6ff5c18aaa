"""What a node says of its part in a gossip run, signed: how far it is, its account of mass, and its newest steps.

A statement is a copy of the node's record, so it never goes back: what it tells survives the node's end. Mass is in
units of 2 ** -52 and may exceed what JSON readers hold, so it is written in decimal digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, FailFast, Field, TypeAdapter, with_config

from covey.wire.identities.canonical import (
    MAX_COUNT,
    STRICT,
    Count,
    Finite,
    Text,
    canonical_json,
    printable,
    read_canonical,
)

KIND = "gossip/1"
MAX_BYTES = 1 << 20
"""Of a statement: the account of some thousand edges."""
MAX_EDGES = 8000
MAX_STEPS = 50
"""Of which one statement tells; of the others the next ones do."""
MAX_METRICS = 50
MAX_REASON = 2000
MAX_FILTERS = 20
Units = Annotated[str, Field(pattern="^-?[0-9]{1,40}$")]
Number = Annotated[int, Field(ge=1, lt=MAX_COUNT)]
Reason = Annotated[str, Field(max_length=MAX_REASON), AfterValidator(printable)]
PartState = Literal["working", "completed", "left", "failed", "retired", "evicted"]


@with_config(STRICT)
@dataclass(frozen=True)
class EdgeStatement:
    """What was exchanged with one incarnation, cumulative: units, and the number of batches."""

    peer: Text
    incarnation: Number
    sent: Units
    waiting: Units
    reclaimed: Units
    sent_batches: Count
    applied: Units
    applied_batches: Count


@with_config(STRICT)
@dataclass(frozen=True)
class StepStatement:
    """A step that was published: when (Unix seconds), the node's mass after it, and what its training measured."""

    step: Count
    at: Finite
    live: Units
    trained_s: Finite
    """Seconds of the run until then, as `blocked_s`."""
    blocked_s: Finite
    metrics: Annotated[Mapping[Text, Finite], Field(max_length=MAX_METRICS)]


@with_config(STRICT)
@dataclass(frozen=True)
class GossipStatement:
    """A node's part in a run, as its record has it.

    Attributes:
        federation: Its name.
        run: The run's id.
        node: Who says so.
        key: Id of the key that signs.
        incarnation: Which life of the node this is.
        number: Of the incarnation's statements, from 1, without a gap.
        state: What it does, or how its part ended.
        reason: Why.
        step: How many steps it has done.
        minted: The units that it began with.
        live: Those that it has.
        lost: Those that it gave up.
        evicted: Incarnations that it knows to be out: [name, number].
        edges: Its account with each peer.
        steps: Steps of which no statement has told before; where there are none, the newest one.
        model_sha256: Of its newest published model; empty: there is none, or it is not known since a restart.
        at: Unix seconds.
        filters: Names and versions of the site's filters that its newest training has passed; empty: none, or its
            version does not say. Left out then: versions before this field read a statement without it only.
    """

    federation: Text
    run: Text
    node: Text
    key: Text
    incarnation: Number
    number: Number
    state: PartState
    reason: Reason
    step: Count
    minted: Units
    live: Units
    lost: Units
    evicted: Annotated[tuple[tuple[Text, Number], ...], Field(max_length=MAX_EDGES), FailFast()]
    edges: Annotated[tuple[EdgeStatement, ...], Field(max_length=MAX_EDGES), FailFast()]
    steps: Annotated[tuple[StepStatement, ...], Field(max_length=MAX_STEPS), FailFast()]
    model_sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
    at: Finite
    filters: Annotated[tuple[Text, ...], Field(max_length=MAX_FILTERS), FailFast()] = field(default=(), kw_only=True)
    covey: Literal["gossip/1"] = field(default="gossip/1", kw_only=True, repr=False)

    def to_bytes(self) -> bytes:
        """The statement's canonical bytes. Raises LimitExceeded: a number in it is not finite."""
        values = asdict(self)
        return canonical_json(values if self.filters else {key: values[key] for key in values if key != "filters"})

    @classmethod
    def from_bytes(cls, raw: bytes) -> GossipStatement:
        """Read and bound a statement from anybody.

        Raises:
            IdentityError: It is not such a statement.
            LimitExceeded: It is too long.
        """
        return read_canonical(_GOSSIP, raw, KIND, MAX_BYTES)

    @property
    def told(self) -> int:
        """Of how many steps statements have told with this one; 0: of none of which this one does."""
        return self.steps[-1].step + 1 if self.steps else 0

    def account(self) -> dict[str, Any]:
        """The node's account, as `covey gossip status --json` prints it."""
        whole = asdict(self)
        names = ("run", "node", "incarnation", "minted", "live", "lost", "evicted", "edges")
        return {name: whole[name] for name in names}


_GOSSIP = TypeAdapter(GossipStatement)
