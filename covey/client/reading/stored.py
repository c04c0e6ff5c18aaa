"""A record that is read from a coordinator's data directory while no coordinator runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from typing_extensions import override

from covey.artifact import read_chunks
from covey.client.reading.record import Record
from covey.coordinator.admin import views
from covey.coordinator.admin.queries import Queries
from covey.coordinator.admin.site_log import site_log_page
from covey.coordinator.backup.artifacts_address import noted_address
from covey.coordinator.config import DATABASE, sqlite_url
from covey.coordinator.nodes.adversaries import NEWEST, drills_on_record
from covey.coordinator.nodes.site_logs import FOLDER, SiteLogs
from covey.errors import NotFound
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import NodeRecord
from covey.storage.sql.store import open_store
from covey.wire.identities.identity import Identity

INTERRUPTED = "interrupted"
"""State of a run that was running when the coordinator ended."""
ARTIFACTS = Path("files") / "artifacts"
"""Where, in a coordinator's data directory, the model and update files are, named by digest."""


class StoredRecord(Record):
    """The record of a coordinator that is not running: no node is connected, the rest is the same.

    Args:
        data_dir: The coordinator's.

    Raises:
        NotFound: It has no SQLite database.
        StoreError: The database is not at this version's schema.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        if not (data_dir / DATABASE).is_file():
            raise NotFound(
                f"no coordinator is running on {data_dir}, and it has no {DATABASE}; "
                "name a coordinator's data directory, or start a coordinator whose store is elsewhere"
            )
        self._store = open_store(sqlite_url(data_dir), migrate=False)
        self._queries = Queries(self._store, self._node_view)
        self._drills: dict[str, str] | None = None

    @property
    def identity(self) -> Identity:
        """The coordinator's own: a backup holds it too."""
        return Identity.load(self._data_dir / "keys")

    @override
    async def runs(self, limit: int, before: str) -> pb.ListRunsReply:
        reply = await asyncio.to_thread(self._queries.runs, limit, before)
        for view in reply.runs:
            self._interrupted(view)
        return reply

    @override
    async def run(self, run: str) -> pb.Run:
        return self._interrupted(await asyncio.to_thread(self._queries.run, run))

    def _interrupted(self, view: pb.Run) -> pb.Run:
        """Nobody works on a run that was in progress when the coordinator ended."""
        if view.state == "running":
            view.state = INTERRUPTED
            why = f"no coordinator is running on {self._data_dir}; its next start goes on with this run"
            view.reason = "; ".join(filter(None, [why, view.reason]))
        return view

    @override
    async def rounds(self, run: str, after: int, limit: int, newest: bool) -> pb.ListRoundsReply:
        return await asyncio.to_thread(self._queries.rounds, run, after, limit, newest=newest)

    @override
    async def round(self, run: str, number: int, after: str) -> pb.RoundDetail:
        return await asyncio.to_thread(self._queries.round, run, number, after)

    @override
    async def contributions(self, run: str, after: str) -> pb.ListContributionsReply:
        return await asyncio.to_thread(self._queries.contributions, run, after)

    @override
    async def gossip(self, run: str, after: str) -> pb.ListGossipReply:
        return await asyncio.to_thread(self._queries.gossip, run, after)

    @override
    async def version(self, run: str, number: int, node: str = "") -> pb.Version:
        return views.version_view(await asyncio.to_thread(self._queries.version, run, number, node))

    @override
    async def chunks(self, run: str, version: int, node: str = "") -> AsyncGenerator[bytes]:
        record = await asyncio.to_thread(self._queries.kept_version, run, version, node)
        path = self._data_dir / ARTIFACTS / record.artifact.digest
        try:
            with path.open("rb", buffering=0) as file:
                for chunk in read_chunks(file):
                    yield bytes(chunk)
        except FileNotFoundError as error:
            address = noted_address(self._data_dir)
            if address is None:
                raise NotFound(f"the file of version {version} is gone: {path}; restore a backup") from error
            distant = address.chunks(record.artifact.digest)
            while (data := await asyncio.to_thread(lambda: next(distant, b""))) != b"":
                yield data

    @override
    async def signed(self, run: str) -> AsyncGenerator[pb.AuditReply]:
        pages = self._queries.audited(run, self.identity.signing_key.public_bytes)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            yield page

    @override
    async def nodes(self, after: str, limit: int = 0, role: str = "node") -> pb.ListNodesReply:
        return await asyncio.to_thread(self._queries.nodes, after, limit, role=role)

    @override
    async def node(self, node: str) -> pb.NodeDetail:
        return await asyncio.to_thread(self._queries.node, node)

    @override
    async def events(self, run: str, node: str, before: int, limit: int) -> pb.ListEventsReply:
        return await asyncio.to_thread(self._queries.events, run, node, before, limit)

    @override
    async def site_log(self, run: str, node: str, after: int) -> pb.ListSiteLogReply:
        record = await asyncio.to_thread(self._store.run, run)
        return await asyncio.to_thread(site_log_page, SiteLogs(self._data_dir / FOLDER), record, node, after)

    @override
    async def close(self) -> None:
        await asyncio.to_thread(self._store.close)

    def _node_view(self, record: NodeRecord) -> pb.Node:
        if self._drills is None:
            self._drills = drills_on_record(self._store.events(limit=NEWEST))
        return views.node_view(record, False, self._drills.get(record.node, ""))
