"""The node's health, for its own machine only: the standard gRPC service on loopback, with the node's own keys."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import grpc
import grpc.aio

from covey.errors import IdentityError
from covey.wire.announcement import announce, withdraw
from covey.wire.channels import Options, Peer, listen, renewing_credentials, server_options
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

    Service "" is serving while the daemon answers at all; the others while what is given says so.

    Args:
        name: The node's.
        services: Names to whether that service is up: "session" (there is one with the coordinator), or, where nodes
            have no coordinator, "peers" (there is a link to one of them) and "store" (its disk can be written).
    """

    def __init__(self, name: str, services: Mapping[str, Callable[[], bool]]) -> None:
        self._name, self._services = name, services

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        return HealthService(self._admit, {name: _soon(is_up) for name, is_up in self._services.items()}).handler()

    def _admit(self, peer: Peer) -> None:
        if (peer.name, peer.role) != (self._name, "node"):
            raise IdentityError(f"only the node itself may ask for its health, not {peer.name!r}")


def _soon(is_up: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return is_up()

    return ask


@contextlib.asynccontextmanager
async def listening(
    newest: Callable[[], Identity], data_dir: Path, services: Mapping[str, Callable[[], bool]], command: str = "node"
) -> AsyncIterator[str]:
    """Serve the node's health inside the context, at the address that it yields and that `node.json` announces.

    Args:
        newest: Gives the node's identity as it is now.
        data_dir: The node's.
        services: As for `NodeHealth`.
        command: What starts the node: `covey COMMAND start`.

    Raises:
        CoveyError: There is no port to be had on loopback.
    """
    server = grpc.aio.server(options=[*server_options(), *LIMITS], maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS)
    server.add_generic_rpc_handlers((NodeHealth(newest().name, services).handler(),))
    port = listen(server, LOOPBACK, renewing_credentials(newest, mutual=True), "for health checks:")
    await server.start()
    address = f"127.0.0.1:{port}"
    announce(data_dir / ANNOUNCEMENT, listen=address, command=command)
    try:
        yield address
    finally:
        withdraw(data_dir / ANNOUNCEMENT)
        await server.stop(GRACE_S)
