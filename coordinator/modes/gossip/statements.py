"""What comes from nodes: a statement is checked against the run and the record before it counts."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from dataclasses import dataclass

from covey import messages as msg
from covey.errors import IdentityError, NotFound, NotReady
from covey.storage.record.contract import GossipStatementRecord
from covey.wire.identities.gossip_statement import GossipStatement
from covey.wire.identities.signing import key_id, verify

MOST_STATEMENTS = 1000
"""Of one incarnation, that are kept: nodes say so more rarely the longer a run takes."""


@dataclass(frozen=True)
class Known:
    """The newest statement of a node on record: which, its digest, and how many steps statements have told of."""

    incarnation: int = 1
    number: int = 0
    told: int = 0
    digest: str = ""

    @classmethod
    def of(cls, row: GossipStatementRecord) -> Known:
        """A statement on record."""
        return cls(row.incarnation, row.number, row.told, hashlib.sha256(row.statement).hexdigest())

    def receipt(self, run: str) -> msg.GossipReceipt:
        """What its node is told of it."""
        return msg.GossipReceipt(run, self.incarnation, self.number, self.told, self.digest)


class Statements:
    """The statements of one run: which is the next one of each node.

    Args:
        federation: Its name.
        run: The run's id.
        recorded: The newest on record of each node.
    """

    def __init__(self, federation: str, run: str, recorded: Iterable[GossipStatementRecord] = ()) -> None:
        self._federation, self._run = federation, run
        self._known = {row.node: Known.of(row) for row in recorded}

    def of(self, node: str) -> Known:
        """What is known of a node."""
        return self._known.get(node, Known())

    def open(self, node: str, key: tuple[str, bytes], message: msg.GossipSaid) -> GossipStatement:
        """A statement of a node's, once everything about it was checked.

        Args:
            node: Who sends it.
            key: Id and raw bytes of its present signing key.
            message: The message.

        Raises:
            IdentityError: It is not signed by the node, is of another run or node, or not such a statement.
            LimitExceeded: It is too long.
        """
        verify(key[1], message.statement, message.signature)
        statement = GossipStatement.from_bytes(message.statement)
        if (statement.federation, statement.run, statement.node) != (self._federation, self._run, node):
            raise IdentityError("the statement names another federation, run or node")
        if statement.key != key_id(key[1]):
            raise IdentityError("the statement names another key than the one that signed it")
        known = self.of(node)
        if not known.incarnation <= statement.incarnation <= known.incarnation + 1:
            raise IdentityError(
                f"the statement is of incarnation {statement.incarnation}, and {known.incarnation} is on record"
            )
        return statement

    def require_successor(self, statement: GossipStatement, out: Container[tuple[str, int]]) -> None:
        """Check that a new incarnation follows one that is over: its peers take no other one either.

        Args:
            statement: As `open` returned it.
            out: Incarnations that are out: (name, number).

        Raises:
            NotReady: The one before it is not.
        """
        before = self.of(statement.node).incarnation
        if statement.incarnation > before and (statement.node, before) not in out:
            raise NotReady(f"incarnation {statement.incarnation} states something before {before} is evicted")

    def is_next(self, statement: GossipStatement) -> bool:
        """Whether it is the one to be put on record; else its node is told which one is."""
        known = self.of(statement.node)
        before = known.number if statement.incarnation == known.incarnation else 0
        return statement.number == before + 1

    def record(self, statement: GossipStatement, message: msg.GossipSaid, now: float) -> GossipStatementRecord:
        """The next one as it is put on record."""
        known = self.of(statement.node)
        before = known.told if statement.incarnation == known.incarnation else 0
        return GossipStatementRecord(
            run=self._run,
            node=statement.node,
            incarnation=statement.incarnation,
            number=statement.number,
            step=statement.step,
            told=max(before, statement.told),
            key_id=statement.key,
            received_at=now,
            statement=message.statement,
            signature=message.signature,
        )

    def recorded(self, row: GossipStatementRecord) -> Known:
        """It is on record."""
        known = self._known[row.node] = Known.of(row)
        return known


def require_member(node: str, members: Iterable[str]) -> None:
    """Raises NotFound where a node takes no part."""
    if node not in members:
        raise NotFound(f"{node!r} takes no part in this run: it began with other nodes")
