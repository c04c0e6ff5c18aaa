"""The node's health, for its own machine only: the standard gRPC service on loopback, with the node's own keys."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio

from covey.errors import IdentityError
from covey.wire.announcement import announce, withdraw
from covey.wire.channels import Options, Peer, listen, server_credentials, server_options
from covey.wire.identities.identity import Identity
from covey.wire.listeners.health import HealthService

ANNOUNCEMENT = "node.json"
LOOPBACK = "127.0.0.1:0"
MAX_REQUEST_BYTES = 1024
MAX_CONCURRENT_RPCS = 16
GRACE_S = 0.5
LIMITS: Options = [
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_metadata_size", 8192),
    ("grpc.server_handshake_timeout_ms", 5000),
    ("grpc.max_connection_idle_ms", 60_000),
]


class NodeHealth:
    """Serves `grpc.health.v1.Health` to callers with this node's own certificate.

    Services: "" is serving while the daemon answers at all, "session" while it has a session with its coordinator.
    """

    def __init__(self, name: str, session_up: Callable[[], bool]) -> None:
        self._name, self._session_up = name, session_up

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        return HealthService(self._admit, {"session": self._session}).handler()

    def _admit(self, peer: Peer) -> None:
        if (peer.name, peer.role) != (self._name, "node"):
            raise IdentityError(f"only the node itself may ask for its health, not {peer.name!r}")

    async def _session(self) -> bool:
        return self._session_up()


@contextlib.asynccontextmanager
async def listening(identity: Identity, data_dir: Path, session_up: Callable[[], bool]) -> AsyncIterator[str]:
    """Serve the node's health inside the context, at the address that it yields and that `node.json` announces.

    Raises:
        CoveyError: There is no port to be had on loopback.
    """
    server = grpc.aio.server(options=[*server_options(), *LIMITS], maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS)
    server.add_generic_rpc_handlers((NodeHealth(identity.name, session_up).handler(),))
    port = listen(server, LOOPBACK, server_credentials(identity), "for health checks:")
    await server.start()
    address = f"127.0.0.1:{port}"
    announce(data_dir / ANNOUNCEMENT, listen=address)
    try:
        yield address
    finally:
        withdraw(data_dir / ANNOUNCEMENT)
        await server.stop(GRACE_S)
