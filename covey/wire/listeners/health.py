"""The standard gRPC health service of both daemons: `Check`, for callers who may ask, and nothing that stays.

`Watch` is not served, though `grpc_health` has it: a stream that lasts as long as its reader likes would be held open
by whoever reads nothing, and with the servicer's lock also hold up everybody who sets that state.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME, aio

from covey.wire.channels import Context, Peer, peer_identity
from covey.wire.errors import translated

States = health_pb2.HealthCheckResponse


class HealthService:
    """Answers `Check` of `grpc.health.v1.Health`: the library's servicer, whose table is brought up to date first.

    Args:
        admit: Raises `IdentityError` for a caller who may not ask.
        services: Names to what says whether that service is up; "", the daemon itself, is up while it answers.
    """

    def __init__(self, admit: Callable[[Peer], None], services: Mapping[str, Callable[[], Awaitable[bool]]]) -> None:
        self._admit, self._services = admit, services
        self._servicer = aio.HealthServicer()

    async def check(self, request: Any, context: Context) -> Any:
        """The state of one service, looked at now; NOT_FOUND if there is no such service.

        Raises:
            IdentityError: The caller may not ask.
        """
        self._admit(peer_identity(context))
        if request.service in self._services:
            up = await self._services[request.service]()
            await self._servicer.set(request.service, States.SERVING if up else States.NOT_SERVING)
        return await self._servicer.Check(request, context)

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        check = grpc.unary_unary_rpc_method_handler(
            translated(self.check),
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE_NAME, {"Check": check})


async def round_trip_s(channel: grpc.aio.Channel, timeout_s: float = 10.0) -> float:
    """How long a question and its answer take on a connection; 0.0: it is not answered."""
    check = channel.unary_unary(
        f"/{SERVICE_NAME}/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    try:
        await check(health_pb2.HealthCheckRequest(), timeout=timeout_s)  # with the making of the connection
        began = time.monotonic()
        await check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    except grpc.aio.AioRpcError:
        return 0.0
    return time.monotonic() - began
