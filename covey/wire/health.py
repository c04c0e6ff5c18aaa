"""The standard gRPC health service of both daemons: `Check`, for callers who may ask, and nothing that stays.

`Watch` is not served: a stream that lasts as long as its reader likes would be held open by whoever reads nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from covey.errors import NotFound
from covey.wire.channels import Context, Peer, peer_identity
from covey.wire.errors import translated

States = health_pb2.HealthCheckResponse


class HealthService:
    """Answers `Check` of `grpc.health.v1.Health`.

    Args:
        admit: Raises `IdentityError` for a caller who may not ask.
        services: Names to what says whether that service is up; "", the daemon itself, is up while it answers.
    """

    def __init__(self, admit: Callable[[Peer], None], services: Mapping[str, Callable[[], Awaitable[bool]]]) -> None:
        self._admit, self._services = admit, services

    async def check(self, request: Any, context: Context) -> Any:
        """The state of one service, looked at now.

        Raises:
            IdentityError: The caller may not ask.
            NotFound: There is no such service.
        """
        self._admit(peer_identity(context))
        if request.service and request.service not in self._services:
            raise NotFound(f"there is no such service; there are '' and {', '.join(map(repr, self._services))}")
        up = not request.service or await self._services[request.service]()
        return States(status=States.SERVING if up else States.NOT_SERVING)

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        check = grpc.unary_unary_rpc_method_handler(
            translated(self.check),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
