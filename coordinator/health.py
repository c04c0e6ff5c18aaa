"""The coordinator's health: the standard gRPC health service, with a state that is looked at when somebody asks."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from coordinator.environment import StoreThread
from covey.errors import StoreError
from covey.wire.channels import Context

STORE = "store"
PROBE_S = 2.0
States = health_pb2.HealthCheckResponse


class CoordinatorHealth(HealthServicer):  # type: ignore[misc]  # the library has no types
    """Serves `grpc.health.v1.Health`.

    Services: "" is serving while the daemon answers at all, "store" while its database can be reached.
    """

    def __init__(self, store: StoreThread) -> None:
        super().__init__()
        self._store = store
        self._probe: asyncio.Task[bool] | None = None

    async def Check(self, request: Any, context: Context) -> Any:
        """The state of one service."""
        if request.service == STORE:
            await self.set(STORE, States.SERVING if await self._store_serves() else States.NOT_SERVING)
        return await super().Check(request, context)

    async def _store_serves(self) -> bool:
        """Ask the database, one question at a time however many callers there are."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._ask_store())
        try:
            async with asyncio.timeout(PROBE_S):
                return await asyncio.shield(self._probe)
        except TimeoutError:  # it is busy with something long, or on its way to find out
            return self._store.up

    async def _ask_store(self) -> bool:
        try:
            await self._store.call(self._store.store.setting, "paused")
        except StoreError:
            return False
        return True
