"""What can be read of a federation, wherever it is read from; in pages, as messages of the admin service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from covey.protos import admin_pb2 as pb
from covey.wire.identities.identity import Identity


class Record(ABC):
    """The record of a federation, read through its coordinator or from its data directory.

    Names of runs are ids, or names: the newest run of that name. Methods raise `NotFound` for what there is not, and
    `Conflict` for a name that several runs have.
    """

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """Whose keys the reader trusts."""

    @abstractmethod
    async def runs(self, limit: int, before: str) -> pb.ListRunsReply:
        """A page of runs, the newest first; `before`: a run's id."""

    @abstractmethod
    async def run(self, run: str) -> pb.Run:
        """A run."""

    @abstractmethod
    async def rounds(self, run: str, after: int, limit: int, newest: bool) -> pb.ListRoundsReply:
        """A page of a run's rounds after a number, in order; with `newest` the last ones."""

    @abstractmethod
    async def round(self, run: str, number: int, after: str) -> pb.RoundDetail:
        """One round, its version, and a page of its updates: of nodes after `after`."""

    @abstractmethod
    async def contributions(self, run: str, after: str) -> pb.ListContributionsReply:
        """A page of what each node of a run's roster did in it, after a node."""

    @abstractmethod
    async def gossip(self, run: str, after: str) -> pb.ListGossipReply:
        """A page of the parts in a gossip run, after a node."""

    @abstractmethod
    async def version(self, run: str, number: int, node: str = "") -> pb.Version:
        """A version by its number; -1: the newest, -2: the best. With `node`: with that node's own file."""

    @abstractmethod
    def chunks(self, run: str, version: int, node: str = "") -> AsyncGenerator[bytes]:
        """A version's file, chunk by chunk."""

    @abstractmethod
    def signed(self, run: str) -> AsyncGenerator[pb.AuditReply]:
        """Every row of a run with its seals; of an older coordinator its signed statements."""

    @abstractmethod
    async def nodes(self, after: str, limit: int = 0, role: str = "node") -> pb.ListNodesReply:
        """A page of nodes, or of identities of another role, by name."""

    @abstractmethod
    async def node(self, node: str) -> pb.NodeDetail:
        """One node and its newest events."""

    @abstractmethod
    async def events(self, run: str, node: str, before: int, limit: int) -> pb.ListEventsReply:
        """A page of events, the newest first, of a run (its id; empty: of all) or node; `before`: an event's number."""

    @abstractmethod
    async def site_log(self, run: str, node: str, after: int) -> pb.ListSiteLogReply:
        """A page of what a node shares of its log about a run, after a line's number."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of what it is read from."""
