"""Files between a node and its coordinator: connections of their own, for each way as many as the link is worth."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
from typing_extensions import override

from covey.artifact import Artifact
from covey.errors import TransferError
from covey.node.ports import Bulk, OnBytes
from covey.wire.channels import secure_channel
from covey.wire.errors import from_rpc_error
from covey.wire.identities.identity import Identity
from covey.wire.listeners.health import round_trip_s
from covey.wire.transfers.chunk_writer import Files
from covey.wire.transfers.lanes import LEAST_BYTES, Pace
from covey.wire.transfers.streams import download, upload

STALL_S = 30.0
REMEMBERED = 16
"""Uploads that broke."""


class _Way:
    """One direction: its connections, which stay, and the pace of the files that passed."""

    def __init__(self, server: str, identity: Identity, name: str) -> None:
        self._server, self._identity, self._name = server, identity, name
        self._channels = [self._connect(0)]
        self.pace = Pace()

    def _connect(self, index: int) -> grpc.aio.Channel:
        # Channels with different names do not share a connection.
        return secure_channel(self._server, self._identity, dummy=f"{self._name}-{index}")

    async def channels(self, size_bytes: int, most: int) -> list[grpc.aio.Channel]:
        """The connections over which so many bytes are to go, at most `most`."""
        if most <= 1 or size_bytes < LEAST_BYTES:
            return self._channels[:1]
        self.pace.answered(await round_trip_s(self._channels[0]))
        count = self.pace.lanes(most)
        self._channels += [self._connect(index) for index in range(len(self._channels), count)]
        return self._channels[:count]

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))


class BulkChannels(Bulk):
    """`covey.node.ports.Bulk` over gRPC streams.

    Args:
        server: The coordinator's address.
        identity: The node's.
        files: Where downloads go.
        stall_s: How long no chunk may pass.

    Attributes:
        most_lanes: How many connections one file may take, each way: as the coordinator says.
    """

    def __init__(self, server: str, identity: Identity, files: Files, *, stall_s: float = STALL_S) -> None:
        self._files, self._stall_s = files, stall_s
        self._down, self._up = _Way(server, identity, "downloads"), _Way(server, identity, "uploads")
        self.most_lanes = 1
        self._reached: OrderedDict[str, int] = OrderedDict()
        """How far uploads of a file had come, by digest."""

    @override
    async def download(self, artifact: Artifact, on_bytes: OnBytes) -> None:
        with _interrupted():
            channel, *beside = await self._down.channels(artifact.size_bytes, self.most_lanes)
            with _timed(self._down.pace, on_bytes) as passed:
                await download(channel, artifact, self._files, stall_s=self._stall_s, on_progress=passed, beside=beside)

    @override
    async def upload(self, path: Path, artifact: Artifact, offset: int, on_bytes: OnBytes) -> None:
        digest, before = artifact.digest, self._reached.pop(artifact.digest, 0)
        self._reached[digest] = offset
        if len(self._reached) > REMEMBERED:
            self._reached.popitem(last=False)

        def moved(count: int) -> None:
            self._reached[digest] = self._reached.get(digest, offset) + count
            on_bytes(count)

        with _interrupted():
            channel, *beside = await self._up.channels(artifact.size_bytes - offset, self.most_lanes)
            with _timed(self._up.pace, moved) as passed:
                await upload(
                    channel,
                    path,
                    artifact,
                    offset,
                    stall_s=self._stall_s,
                    on_progress=passed,
                    beside=beside,
                    sent_bytes=before,
                )
        self._reached.pop(digest, None)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(self._down.close(), self._up.close())


@contextlib.asynccontextmanager
async def bulk_into(server: str, identity: Identity, files: Files) -> AsyncIterator[BulkChannels]:
    """Connections of their own for files that go elsewhere than the others."""
    bulk = BulkChannels(server, identity, files)
    try:
        yield bulk
    finally:
        await bulk.close()


@contextlib.contextmanager
def _timed(pace: Pace, on_bytes: OnBytes) -> Iterator[OnBytes]:
    """Tell the pace of a transfer, from its first chunk to its last."""
    moved_bytes, first_at, last_at = 0, 0.0, 0.0

    def passed(count: int) -> None:
        nonlocal moved_bytes, first_at, last_at
        last_at = time.monotonic()
        first_at = first_at or last_at
        moved_bytes += count
        on_bytes(count)

    yield passed
    pace.passed(moved_bytes, last_at - first_at)


@contextlib.contextmanager
def _interrupted() -> Iterator[None]:
    """Whatever status a call ended with: its grant is gone, and the transfer goes on with another one."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise TransferError(str(from_rpc_error(error))) from error
