"""Files between a node and its coordinator: two connections of their own, one for each way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
from typing_extensions import override

from covey.artifact import Artifact
from covey.errors import TransferError
from covey.node.ports import Bulk, OnBytes
from covey.wire.channels import secure_channel
from covey.wire.errors import from_rpc_error
from covey.wire.identities.identity import Identity
from covey.wire.transfers.chunk_writer import Files
from covey.wire.transfers.streams import download, upload

STALL_S = 30.0


class BulkChannels(Bulk):
    """`covey.node.ports.Bulk` over gRPC streams.

    Args:
        server: The coordinator's address.
        identity: The node's.
        files: Where downloads go.
        stall_s: How long no chunk may pass.
    """

    def __init__(self, server: str, identity: Identity, files: Files, *, stall_s: float = STALL_S) -> None:
        self._files, self._stall_s = files, stall_s
        self._downloads = secure_channel(server, identity, dummy="downloads")
        self._uploads = secure_channel(server, identity, dummy="uploads")

    @override
    async def download(self, artifact: Artifact, on_bytes: OnBytes) -> None:
        with _interrupted():
            await download(self._downloads, artifact, self._files, stall_s=self._stall_s, on_progress=on_bytes)

    @override
    async def upload(self, path: Path, artifact: Artifact, offset: int, on_bytes: OnBytes) -> None:
        with _interrupted():
            await upload(self._uploads, path, artifact, offset, stall_s=self._stall_s, on_progress=on_bytes)

    async def close(self) -> None:
        """Close both connections."""
        await self._downloads.close()
        await self._uploads.close()


@contextlib.contextmanager
def _interrupted() -> Iterator[None]:
    """Whatever status a call ended with: its grant is gone, and the transfer goes on with another one."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise TransferError(str(from_rpc_error(error))) from error
