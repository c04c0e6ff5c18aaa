"""A record that is read through a running coordinator."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import cast

from typing_extensions import override

from covey.client.reading.admin_channel import AdminChannel
from covey.client.reading.record import Record
from covey.protos import admin_pb2 as pb
from covey.wire.identities.identity import Identity


class RemoteRecord(Record):
    """The record of the coordinator at the other end of a channel."""

    def __init__(self, channel: AdminChannel) -> None:
        self._channel = channel

    @property
    def identity(self) -> Identity:
        """The caller's own: it names the coordinator that enrolled it."""
        return self._channel.identity

    @override
    async def runs(self, limit: int, before: str) -> pb.ListRunsReply:
        request = pb.ListRunsRequest(limit=limit, before=before)
        return cast(pb.ListRunsReply, await self._channel.call("ListRuns", request))

    @override
    async def run(self, run: str) -> pb.Run:
        return cast(pb.Run, await self._channel.call("ShowRun", pb.RunRequest(run=run)))

    @override
    async def rounds(self, run: str, after: int, limit: int, newest: bool) -> pb.ListRoundsReply:
        request = pb.ListRoundsRequest(run=run, after=after, limit=limit, newest=newest)
        return cast(pb.ListRoundsReply, await self._channel.call("ListRounds", request))

    @override
    async def round(self, run: str, number: int, after: str) -> pb.RoundDetail:
        request = pb.RoundRequest(run=run, round=number, after=after)
        return cast(pb.RoundDetail, await self._channel.call("ShowRound", request))

    @override
    async def contributions(self, run: str, after: str) -> pb.ListContributionsReply:
        request = pb.ListContributionsRequest(run=run, after=after)
        return cast(pb.ListContributionsReply, await self._channel.call("ListContributions", request))

    @override
    async def gossip(self, run: str, after: str) -> pb.ListGossipReply:
        request = pb.ListGossipRequest(run=run, after=after)
        return cast(pb.ListGossipReply, await self._channel.call("ListGossip", request))

    @override
    async def version(self, run: str, number: int, node: str = "") -> pb.Version:
        request = pb.LocateVersionRequest(run=run, version=number, node=node)
        return cast(pb.Version, await self._channel.call("LocateVersion", request))

    @override
    async def chunks(self, run: str, version: int, node: str = "") -> AsyncGenerator[bytes]:
        request = pb.LocateVersionRequest(run=run, version=version, node=node)
        async with contextlib.aclosing(self._channel.stream("DownloadVersion", request)) as messages:
            async for message in messages:
                yield message.data

    @override
    def signed(self, run: str) -> AsyncGenerator[pb.AuditReply]:
        return self._channel.stream("AuditRun", pb.AuditRequest(run=run, rows=True))

    @override
    async def nodes(self, after: str, limit: int = 0, role: str = "node") -> pb.ListNodesReply:
        request = pb.ListNodesRequest(after=after, limit=limit, role=role)
        return cast(pb.ListNodesReply, await self._channel.call("ListNodes", request))

    @override
    async def node(self, node: str) -> pb.NodeDetail:
        return cast(pb.NodeDetail, await self._channel.call("ShowNode", pb.NodeRequest(node=node)))

    @override
    async def events(self, run: str, node: str, before: int, limit: int) -> pb.ListEventsReply:
        request = pb.ListEventsRequest(run=run, node=node, before=before, limit=limit)
        return cast(pb.ListEventsReply, await self._channel.call("ListEvents", request))

    @override
    async def site_log(self, run: str, node: str, after: int) -> pb.ListSiteLogReply:
        request = pb.ListSiteLogRequest(run=run, node=node, after=after)
        return cast(pb.ListSiteLogReply, await self._channel.call("ListSiteLog", request))

    @override
    async def close(self) -> None:
        await self._channel.close()
