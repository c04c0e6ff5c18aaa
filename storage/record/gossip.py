"""Gossip runs as a coordinator sees them: who takes part, and what the nodes signed of their parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from covey.storage.record.records import GossipMemberRecord, GossipStatementRecord

JOINED = "gossip-joined"
"""Kind of the event of a node that takes part since after the run began; its detail is `{"part": N}` of the data."""


class Gossip(ABC):
    """Members of gossip runs, and their statements."""

    @abstractmethod
    def set_gossip_members(self, members: Sequence[GossipMemberRecord]) -> None:
        """Put members on record, each in place of what was known of it."""

    @abstractmethod
    def gossip_members(self, run: str, *, after: str = "", limit: int | None = None) -> list[GossipMemberRecord]:
        """A run's members by name, after one of them."""

    @abstractmethod
    def add_gossip_statement(self, statement: GossipStatementRecord, *, most: int) -> None:
        """Put a statement on record, once; of its incarnation's the newest `most` are kept, and the first."""

    @abstractmethod
    def newest_gossip_statements(self, run: str, nodes: Sequence[str] | None = None) -> list[GossipStatementRecord]:
        """The newest statement of each node's newest incarnation that has one, by node; of these nodes only."""

    @abstractmethod
    def gossip_step(self, run: str) -> int:
        """How many steps the node has done that is furthest back, of those that have stated any; else 0."""

    @abstractmethod
    def gossip_statements(self, run: str, node: str) -> list[GossipStatementRecord]:
        """All kept statements of a node, by incarnation and number."""
