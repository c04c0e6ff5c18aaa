"""The coordinator's health: the standard gRPC health service, with a state that is looked at when somebody asks."""

from __future__ import annotations

import asyncio
import time

import grpc

from covey.coordinator.nodes.members import Members
from covey.coordinator.store_thread import StoreThread
from covey.errors import StoreError
from covey.wire.channels import Peer
from covey.wire.listeners.health import HealthService

STORE = "store"
PROBE_S = 2.0


class CoordinatorHealth:
    """Serves `grpc.health.v1.Health` to everybody who is enrolled, whatever the role.

    Services: "" is serving while the daemon answers at all, "store" while its database can be reached.
    """

    def __init__(self, store: StoreThread, members: Members) -> None:
        self._store, self._members = store, members
        self._probe: asyncio.Task[bool] | None = None

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        return HealthService(self._admit, {STORE: self.store_serves}).handler()

    def _admit(self, peer: Peer) -> None:
        self._members.admit(peer, time.time())

    async def store_serves(self) -> bool:
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
