"""The tables of the record, as SQLAlchemy typed models.

The database holds no tensors: model and update files lie beside it and are named here by digest. What was
decided is never deleted, but with its whole run on an admin's order; else only `file_references` shrinks, when
retention lets files go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

LEASE_ROW = 1
"""The only row of `lease`: whoever writes locks it first, so that one writes at a time on every back end."""


class StoredBytes(LargeBinary):
    """Bytes; text in their place, which somebody else must have put there, is read as its UTF-8."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], bytes | None]:
        """What is read."""
        return lambda value: value.encode(errors="surrogateescape") if isinstance(value, str) else _bytes(value)


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


class FreeText(TypeDecorator[str]):
    """Text that others wrote: the NUL character, which PostgreSQL has no place for, is replaced."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What is stored."""
        return value.replace("\0", "\ufffd") if value else value


class Base(DeclarativeBase):
    """Root of the models. Times are Unix seconds, sizes are bytes; constraints have names to migrate by."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        str: String(),
        int: BigInteger(),
        float: Double(),
        bytes: StoredBytes(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


def table_of(model: type[Base]) -> Table:
    """The table behind a model, for statements that need no object-relational layer."""
    table = model.__table__
    if not isinstance(table, Table):
        raise TypeError(f"{model.__name__} is not one table")
    return table


class Run(Base):
    """A submitted job."""

    __tablename__ = "runs"
    run: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    mode: Mapped[str]
    spec: Mapped[str] = mapped_column(Text)
    seed: Mapped[int]
    state: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str] = mapped_column(FreeText)
    submitted_at: Mapped[float]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    roster: Mapped[list[Any]]
    parts: Mapped[int]
    layout: Mapped[str] = mapped_column(Text)
    __table_args__ = (Index(None, "submitted_at", "run"),)


class Group(Base):
    """Assignments that are made together: a synchronous round, or an asynchronous run's one assignment of one node.

    A synchronous round makes the version of its own number.
    """

    __tablename__ = "groups"
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    phase: Mapped[int]
    state: Mapped[str]
    invited: Mapped[list[Any]]
    base_version: Mapped[int]
    started_at: Mapped[float]
    attempt_at: Mapped[float]
    committed_at: Mapped[float | None]
    bytes_received: Mapped[int]
    bytes_sent: Mapped[int]
    reason: Mapped[str] = mapped_column(FreeText)
    version: Mapped[int | None]
    arrival: Mapped[int | None]
    part: Mapped[int | None]
    __table_args__ = (Index(None, "run", "state", "arrival"), Index(None, "run", "arrival"))


class Assignment(Base):
    """One node, asked for one thing: its answer, or that there is none, and the verdict.

    A node of the group's `invited` has no row as long as nothing is known of its answer.
    """

    __tablename__ = "assignments"
    run: Mapped[str] = mapped_column(primary_key=True)
    group_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    phase: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    node: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    attempt: Mapped[int]
    base_version: Mapped[int]
    verdict: Mapped[str]
    reason: Mapped[str] = mapped_column(FreeText)
    digest: Mapped[str]
    statement: Mapped[bytes]
    signature: Mapped[bytes]
    key_id: Mapped[str]
    base_sha256: Mapped[str]
    parts: Mapped[list[Any]]
    bytes: Mapped[int]
    weight: Mapped[float]
    share: Mapped[float]
    numbers: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    received_at: Mapped[float | None]
    kept: Mapped[bool]
    __table_args__ = (
        ForeignKeyConstraint(["run", "group_number"], ["groups.run", "groups.number"]),
        Index(None, "run", "group_number", "verdict"),
        Index(None, "node", "run", "group_number", "verdict"),
    )


class ModelVersion(Base):
    """A committed global state; `measured`: it has metrics."""

    __tablename__ = "model_versions"
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model_sha256: Mapped[str]
    digest: Mapped[str]
    size_bytes: Mapped[int]
    chunk_sha256: Mapped[bytes]
    created_at: Mapped[float]
    parent_sha256: Mapped[str]
    state: Mapped[list[Any]]
    statement: Mapped[bytes]
    signature: Mapped[bytes]
    metrics: Mapped[dict[str, Any]]
    measured: Mapped[bool]
    evaluated: Mapped[bool]
    kept: Mapped[bool]
    __table_args__ = (Index(None, "run", "kept", "version"), Index(None, "run", "measured", "version"))


class Step(Base):
    """From answers to verdicts, a state, and perhaps a version; steps are only ever appended.

    The text of the state is kept of the newest step only; `accepted` and `rejected` count the run's verdicts up to it.
    """

    __tablename__ = "steps"
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cause: Mapped[list[Any]]
    newest: Mapped[int]
    version: Mapped[int | None]
    roster: Mapped[int]
    verdicts: Mapped[list[Any]]
    state: Mapped[str] = mapped_column(Text)
    state_sha256: Mapped[str]
    pinned_updates: Mapped[list[Any]]
    pinned_versions: Mapped[list[Any]]
    opens: Mapped[list[Any]]
    accepted: Mapped[int]
    rejected: Mapped[int]
    decided_at: Mapped[float]


class FileReference(Base):
    """A kept record needs a file: `kind` is `version` (`node` is empty) or `update`, `number` which one."""

    __tablename__ = "file_references"
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    node: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True, index=True)


class Node(Base):
    """An enrolled identity of any role. `token` is the hash of the secret that it last enrolled with."""

    __tablename__ = "nodes"
    node: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    state: Mapped[str]
    enrolled_at: Mapped[float]
    last_seen_at: Mapped[float | None]
    certificate_serial: Mapped[str]
    certificate_expires_at: Mapped[float]
    previous_serial: Mapped[str]
    key_id: Mapped[str]
    version: Mapped[str] = mapped_column(FreeText)
    device: Mapped[str] = mapped_column(FreeText)
    tasks: Mapped[list[Any]]
    token: Mapped[str]


class Key(Base):
    """A signing key, past (`valid_until` set) or present."""

    __tablename__ = "keys"
    key_id: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(ForeignKey("nodes.node"), index=True)
    public_key: Mapped[bytes]
    valid_from: Mapped[float]
    valid_until: Mapped[float | None]


class Token(Base):
    """A join token."""

    __tablename__ = "tokens"
    secret_sha256: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float]
    uses: Mapped[int]


class Redemption(Base):
    """One use of a join token, by one pair of keys."""

    __tablename__ = "redemptions"
    secret_sha256: Mapped[str] = mapped_column(ForeignKey("tokens.secret_sha256"), primary_key=True)
    csr_key_sha256: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str]
    certificate: Mapped[bytes]


class Event(Base):
    """Something worth remembering."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at: Mapped[float]
    kind: Mapped[str]
    run: Mapped[str]
    node: Mapped[str]
    detail: Mapped[dict[str, Any]]
    __table_args__ = (Index(None, "run", "id"), Index(None, "node", "id"))


class Seal(Base):
    """What was signed of rows that are shown; see `covey.storage.record.seals`. `run` is empty for events of no run."""

    __tablename__ = "seals"
    run: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    statement: Mapped[bytes]
    signature: Mapped[bytes]


class GossipMember(Base):
    """A node of a gossip run: where peers call it, and what became of its part."""

    __tablename__ = "gossip_members"
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str]
    fingerprint: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(FreeText)


class GossipStatement(Base):
    """What a node signed of its part in a gossip run. `step` and `told` are copied from the statement."""

    __tablename__ = "gossip_statements"
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int]
    told: Mapped[int]
    key_id: Mapped[str]
    received_at: Mapped[float]
    statement: Mapped[bytes]
    signature: Mapped[bytes]


class Setting(Base):
    """A small persistent setting."""

    __tablename__ = "settings"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Lease(Base):
    """Who is the one coordinator, and the fencing number (`epoch`) that it got."""

    __tablename__ = "lease"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    holder: Mapped[str]


runs = table_of(Run)
groups = table_of(Group)
assignments = table_of(Assignment)
versions = table_of(ModelVersion)
file_references = table_of(FileReference)
steps = table_of(Step)
nodes = table_of(Node)
keys = table_of(Key)
tokens = table_of(Token)
redemptions = table_of(Redemption)
events = table_of(Event)
seals = table_of(Seal)
gossip_members = table_of(GossipMember)
gossip_statements = table_of(GossipStatement)
settings = table_of(Setting)
lease = table_of(Lease)
