"""What all work on a node shares: its settings and keys, and the ports behind which the world is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from typing_extensions import override

from covey.driver.driver import Recorder
from covey.node.models.ports import PeerModels
from covey.node.operator.config import NodeConfig
from covey.node.operator.metrics import NodeMetrics
from covey.node.ports import Bulk, Clock, Files, Link, Store, Worker
from covey.node.site_log.site_log import SiteLog
from covey.wire.identities.identity import Identity


class SystemClock(Clock):
    """The machine's own."""

    @override
    def now(self) -> float:
        return time.monotonic()

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class NodeServices:
    """One node's."""

    config: NodeConfig
    identity: Identity
    link: Link
    bulk: Bulk
    files: Files
    worker: Worker
    store: Store
    metrics: NodeMetrics = field(default_factory=NodeMetrics)
    clock: Clock = field(default_factory=SystemClock)
    now: Callable[[], float] = time.time
    """Unix time in seconds: what the operator's hours go by."""
    recorder: Recorder | None = None
    """Records the events of the machine of assignments; None: nothing does."""
    site_log: SiteLog | None = None
    """What is shared of this node's log; None: nothing, and nothing is said of that."""
    models: PeerModels | None = None
    """Models from other nodes, and for them; None: from the coordinator only."""
