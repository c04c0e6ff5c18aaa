"""The tables of a node's record of one gossip run.

What a restart needs is `run`, `snapshot`, `kept`, `bodies` and `notes`; the rest is history, written in the same
transactions.
Mass is in units of 2 ** -52 and may exceed 64 bits, so it is kept as decimal digits. Times are Unix seconds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Double, Integer, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION = 1
"""Of the tables and of what they hold. What an older Covey can pass over, as a new table, or a part of the machine's
state that is there only where it is used, does not change it. A record of a newer version is refused in words."""
ONLY = 1
"""The key of tables of one row."""


class Base(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map = {  # noqa: RUF012
        str: String(),
        int: Integer(),
        float: Double(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


class RunRow(Base):
    """The run, and this node's part in it."""

    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]
    name: Mapped[str]
    spec: Mapped[str] = mapped_column(Text())
    """As JSON."""
    node: Mapped[str]
    incarnation: Mapped[int]
    minted: Mapped[str]
    peers: Mapped[list[Any]]
    """[name, incarnation] of those who took part from the beginning."""
    layout: Mapped[str] = mapped_column(Text(), default="")
    first: Mapped[dict[str, Any] | None]
    """The first model's artifact; None: it was not made yet."""
    began: Mapped[float]
    ended: Mapped[str] = mapped_column(default="")
    """completed, left, evicted or retired; empty: it goes on."""
    reason: Mapped[str] = mapped_column(Text(), default="")


class SnapshotRow(Base):
    """What the newest publication left: a restart begins with it."""

    __tablename__ = "snapshot"
    id: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int]
    machine: Mapped[str] = mapped_column(Text())
    model: Mapped[dict[str, Any]]
    model_sha256: Mapped[str]
    """Empty until the node's part is over."""


class BodyRow(Base):
    """A model that the snapshot needs: of an own publication (`peer` is empty), or of a batch that came."""

    __tablename__ = "bodies"
    peer: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """The step of an own publication; the number of a batch."""
    artifact: Mapped[dict[str, Any]]


class KeptRow(Base):
    """The vectors that stay with the node, as of the snapshot; none: the protocol has none."""

    __tablename__ = "kept"
    id: Mapped[int] = mapped_column(primary_key=True)
    artifact: Mapped[dict[str, Any]]


class ModelRow(Base):
    """The model of a step, which stays for people, with the mass that it came with; a restart does not need it."""

    __tablename__ = "models"
    step: Mapped[int] = mapped_column(primary_key=True)
    units: Mapped[str]
    artifact: Mapped[dict[str, Any]]


class NoteRow(Base):
    """What came since the snapshot, in order."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    event: Mapped[str] = mapped_column(Text())
    artifact: Mapped[dict[str, Any] | None]


class StepRow(Base):
    """A step that was published."""

    __tablename__ = "steps"
    step: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    trained_s: Mapped[float]
    """Of the run until then, as `blocked_s`."""
    blocked_s: Mapped[float]
    live: Mapped[str]
    in_flight: Mapped[str]
    minted: Mapped[str]
    lost: Mapped[str]
    uncertain: Mapped[str]
    model_sha256: Mapped[str]
    """Of the last one; empty: of the others, whose models have the digest of their file."""


class MetricRow(Base):
    """What a step's training measured."""

    __tablename__ = "metrics"
    step: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class FilterRow(Base):
    """From which step on which of the operator's filters a training has passed (`covey.outgoing.filters`)."""

    __tablename__ = "filters"
    step: Mapped[int] = mapped_column(primary_key=True)
    names: Mapped[list[Any]]
    """With their versions, in their order; none: from here on there was none."""


class ExchangeRow(Base):
    """A batch that was given (`out`) or had (`in`)."""

    __tablename__ = "exchanges"
    way: Mapped[str] = mapped_column(primary_key=True)
    peer: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[int] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    units: Mapped[str]
    step: Mapped[int]
    """The sender's."""
    size_bytes: Mapped[int]
    at: Mapped[float]
    """When it was put on record here."""


class SpanRow(Base):
    """What the node did and when (`covey.node.gossip.diary`).

    A process that was killed leaves out what it did since its newest publication.
    """

    __tablename__ = "spans"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    step: Mapped[int]
    began: Mapped[float]
    ended: Mapped[float]
    peer: Mapped[str]
    """Whose batch; empty: it is work."""
    incarnation: Mapped[int]
    sequence: Mapped[int]
    tries: Mapped[int]
    outcome: Mapped[str]


class EdgeRow(Base):
    """The account of an edge at the newest publication, cumulative."""

    __tablename__ = "edges"
    peer: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[int] = mapped_column(primary_key=True)
    sent: Mapped[str]
    waiting: Mapped[str]
    reclaimed: Mapped[str]
    sent_batches: Mapped[int]
    applied: Mapped[str]
    applied_batches: Mapped[int]


class ReceiptRow(Base):
    """What a peer signed of an edge (`covey.wire.mass_receipts`), the newest only."""

    __tablename__ = "receipts"
    way: Mapped[str] = mapped_column(primary_key=True)
    """in: what the peer gave; out: what it had."""
    peer: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[int] = mapped_column(primary_key=True)
    sequence: Mapped[int]
    units: Mapped[str]
    """Of all batches until then."""
    statement: Mapped[bytes] = mapped_column(LargeBinary())
    signature: Mapped[bytes] = mapped_column(LargeBinary())
    certificate: Mapped[bytes] = mapped_column(LargeBinary())


class PeerRow(Base):
    """What was known of a peer at the newest publication."""

    __tablename__ = "peers"
    peer: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    """there, away, finished, left or evicted."""
    step: Mapped[int]
