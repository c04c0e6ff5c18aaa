"""The node's health, for its own machine only: the standard gRPC service on loopback, with the node's own keys."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from covey.errors import CoveyError, IdentityError, NotFound
from covey.wire.channels import Context, Options, peer_identity, server_credentials, server_options
from covey.wire.errors import translated
from covey.wire.identity import Identity

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
    """Answers `Check` of `grpc.health.v1.Health` to callers with this node's own certificate.

    Services: "" is serving while the daemon answers at all, "session" while it has a session with its coordinator.
    """

    def __init__(self, name: str, session_up: Callable[[], bool]) -> None:
        self._name, self._session_up = name, session_up

    async def check(self, request: Any, context: Context) -> Any:
        """The state of one service.

        Raises:
            IdentityError: The caller is somebody else.
            NotFound: There is no such service.
        """
        peer = peer_identity(context)
        if (peer.name, peer.role) != (self._name, "node"):
            raise IdentityError(f"only the node itself may ask for its health, not {peer.name!r}")
        if request.service not in ("", "session"):
            raise NotFound("a node has the services '' and 'session'")
        up = request.service == "" or self._session_up()
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if up else states.NOT_SERVING)

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        check = grpc.unary_unary_rpc_method_handler(
            translated(self.check),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})


@contextlib.asynccontextmanager
async def listening(identity: Identity, data_dir: Path, session_up: Callable[[], bool]) -> AsyncIterator[str]:
    """Serve the node's health inside the context, at the address that it yields and that `node.json` announces.

    Raises:
        CoveyError: There is no port to be had on loopback.
    """
    server = grpc.aio.server(options=[*server_options(), *LIMITS], maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS)
    server.add_generic_rpc_handlers((NodeHealth(identity.name, session_up).handler(),))
    try:
        port = server.add_secure_port(LOOPBACK, server_credentials(identity))
    except RuntimeError as error:
        raise CoveyError(f"no port of 127.0.0.1 can be taken for health checks: {error}") from error
    await server.start()
    address = f"127.0.0.1:{port}"
    _announce(data_dir / ANNOUNCEMENT, address)
    try:
        yield address
    finally:
        _withdraw(data_dir / ANNOUNCEMENT)
        await server.stop(GRACE_S)


def _announce(path: Path, address: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"listen": address, "pid": os.getpid()}))
    temporary.replace(path)


def _withdraw(path: Path) -> None:
    """Remove what this process announced, and not what another one has announced since."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
