"""What other nodes of a coordinator call to have a model: chunks only, and only with the coordinator's pass for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import grpc
import grpc.aio
import structlog

from covey.errors import IdentityError
from covey.node.models.lending import Lender
from covey.node.models.ports import Shelf
from covey.protos import peer_pb2 as pb
from covey.wire.channels import Context, Peer, listen, peer_identity, renewing_credentials, server_options
from covey.wire.errors import translated_stream
from covey.wire.identities.identity import Identity
from covey.wire.identities.model_pass import DOMAIN, ModelPass
from covey.wire.identities.signing import verify
from covey.wire.listeners.call_limits import Allowance, Caller, CallLimits
from covey.wire.listeners.connections import Connections, allow_many_files, keep_bounded
from covey.wire.listeners.guard import Guard
from covey.wire.transfers.chunks import model_chunks_handler

log = structlog.get_logger(room="peers")
ALLOWED = {
    "node": Allowance(each=8, total=256, begin=(200, 50.0)),
    "admin": Allowance(each=1, total=4),
    "coordinator": Allowance(each=1, total=4),
}
MOST_CALLS = 320
MAX_CONNECTIONS = 256
"""So many may one address have."""
GRACE_S = 0.5


class ModelService:
    """`covey.v1.Peer`, of which it serves `Chunks`.

    Args:
        identity: This node's, as it is now.
        lender: Gives chunks.
    """

    def __init__(self, identity: Callable[[], Identity], lender: Lender) -> None:
        self._identity, self._lender = identity, lender

    def caller(self, context: Context) -> Peer:
        """Who calls: a node of this federation.

        Raises:
            IdentityError: It is none.
        """
        peer = peer_identity(context)
        if peer.role != "node":
            raise IdentityError(f"{peer.name!r} is not a node")
        return peer

    async def chunks(self, request: pb.ChunksRequest, context: Context) -> AsyncGenerator[bytes, None]:
        """Chunks of a model, for a node that the coordinator lets have it.

        Raises:
            IdentityError: It does not.
        """
        name = self.caller(context).name
        self._require_pass(request, name)
        chunks = self._lender.chunks(name, request.digest, request.first, request.count)
        async with contextlib.aclosing(chunks) as messages:
            async for message in messages:
                yield message

    def _require_pass(self, request: pb.ChunksRequest, name: str) -> None:
        identity = self._identity()
        verify(identity.coordinator_key, request.statement, request.signature, DOMAIN)
        permit = ModelPass.from_bytes(request.statement)
        if (permit.federation, permit.node, permit.artifact) != (identity.federation, name, request.digest):
            raise IdentityError(f"the coordinator's pass is not one for {name} and this file")


class ModelListener:
    """The port of one node where others have models from it.

    Args:
        address: `HOST:PORT`.
        identity: This node's, as it is now.
        shelf: The models.
    """

    def __init__(self, address: str, identity: Callable[[], Identity], shelf: Shelf) -> None:
        self._address, self._identity = address, identity
        self._service = ModelService(identity, Lender(shelf))
        self._server: grpc.aio.Server | None = None
        self._bounded: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Listen, if it does not. Raises CoveyError if the address cannot be had."""
        async with self._turn:
            if self._server is not None:
                return
            allow_many_files()
            guard = Guard(self._who, CallLimits(ALLOWED), Connections())
            server = grpc.aio.server(options=server_options(), interceptors=[guard], maximum_concurrent_rpcs=MOST_CALLS)
            chunks = model_chunks_handler(translated_stream(self._service.chunks))
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler("covey.v1.Peer", {"Chunks": chunks}),)
            )
            credentials = renewing_credentials(self._identity, mutual=True)
            port = listen(server, self._address, credentials, "--peer-listen")
            await server.start()
            self._server, self._bounded = server, asyncio.create_task(keep_bounded({port: MAX_CONNECTIONS}))
            log.info("gives models to other nodes", listen=f"{self._address.rpartition(':')[0]}:{port}")

    def _who(self, context: Context) -> Caller:
        peer = self._service.caller(context)
        return Caller(peer.role, peer.name)

    async def close(self) -> None:
        """Listen no more; repeatable."""
        async with self._turn:
            server, self._server = self._server, None
            if self._bounded is not None:
                self._bounded.cancel()
                await asyncio.gather(self._bounded, return_exceptions=True)
                self._bounded = None
            if server is not None:
                await server.stop(GRACE_S)
