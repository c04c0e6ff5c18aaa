"""A record that is read through a running coordinator."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import cast

from covey.client.channel import AdminChannel
from covey.client.record import Record
from covey.protos import admin_pb2 as pb
from covey.wire.identity import Identity


class RemoteRecord(Record):
    """The record of the coordinator at the other end of a channel."""

    def __init__(self, channel: AdminChannel) -> None:
        self._channel = channel

    @property
    def identity(self) -> Identity:
        """The caller's own: it names the coordinator that enrolled it."""
        return self._channel.identity

    async def runs(self, limit: int, before: str) -> pb.ListRunsReply:
        """As `Record.runs`."""
        request = pb.ListRunsRequest(limit=limit, before=before)
        return cast(pb.ListRunsReply, await self._channel.call("ListRuns", request))

    async def run(self, run: str) -> pb.Run:
        """As `Record.run`."""
        return cast(pb.Run, await self._channel.call("ShowRun", pb.RunRequest(run=run)))

    async def rounds(self, run: str, after: int, limit: int, newest: bool) -> pb.ListRoundsReply:
        """As `Record.rounds`."""
        request = pb.ListRoundsRequest(run=run, after=after, limit=limit, newest=newest)
        return cast(pb.ListRoundsReply, await self._channel.call("ListRounds", request))

    async def round(self, run: str, number: int, after: str) -> pb.RoundDetail:
        """As `Record.round`."""
        request = pb.RoundRequest(run=run, round=number, after=after)
        return cast(pb.RoundDetail, await self._channel.call("ShowRound", request))

    async def version(self, run: str, number: int, node: str = "") -> pb.Version:
        """As `Record.version`."""
        request = pb.LocateVersionRequest(run=run, version=number, node=node)
        return cast(pb.Version, await self._channel.call("LocateVersion", request))

    async def chunks(self, run: str, version: int, node: str = "") -> AsyncGenerator[bytes]:
        """As `Record.chunks`."""
        request = pb.LocateVersionRequest(run=run, version=version, node=node)
        async with contextlib.aclosing(self._channel.stream("DownloadVersion", request)) as messages:
            async for message in messages:
                yield message.data

    def signed(self, run: str) -> AsyncGenerator[pb.AuditReply]:
        """As `Record.signed`."""
        return self._channel.stream("AuditRun", pb.RunRequest(run=run))

    async def nodes(self, after: str) -> pb.ListNodesReply:
        """As `Record.nodes`."""
        return cast(pb.ListNodesReply, await self._channel.call("ListNodes", pb.ListNodesRequest(after=after)))

    async def node(self, node: str) -> pb.NodeDetail:
        """As `Record.node`."""
        return cast(pb.NodeDetail, await self._channel.call("ShowNode", pb.NodeRequest(node=node)))

    async def events(self, run: str, node: str, before: int, limit: int) -> pb.ListEventsReply:
        """As `Record.events`."""
        request = pb.ListEventsRequest(run=run, node=node, before=before, limit=limit)
        return cast(pb.ListEventsReply, await self._channel.call("ListEvents", request))

    async def close(self) -> None:
        """As `Record.close`."""
        await self._channel.close()
