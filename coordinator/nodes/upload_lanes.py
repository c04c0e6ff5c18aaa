"""Uploads that come over several connections: their calls are brought together, and taken as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from covey.errors import Conflict, Stalled, TransferError
from covey.wire.transfers.lanes import Lane, woven

GATHER_S = 30.0
"""So long the other connections of a transfer may take to come."""
Take = Callable[[AsyncIterator[memoryview]], Awaitable[int]]
"""Takes a file's chunks in their order, from where this transfer begins; gives how many bytes are here then."""
Key = tuple[str, str, int, int]
"""Node, digest, offset, and the number of connections."""


@dataclass(eq=False)
class _Gathered:
    task: asyncio.Task[int]
    streams: dict[int, AsyncIterator[memoryview]] = field(default_factory=dict)
    is_complete: asyncio.Event = field(default_factory=asyncio.Event)


class UploadLanes:
    """The transfers of all nodes that are coming over several connections.

    Args:
        gather_s: As `GATHER_S`.
    """

    def __init__(self, gather_s: float = GATHER_S) -> None:
        self._gather_s = gather_s
        self._open: dict[Key, _Gathered] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    async def take(
        self, node: str, digest: str, offset: int, lane: Lane, stream: AsyncIterator[memoryview], take: Take
    ) -> int:
        """Serve one call of a transfer: it ends as the whole transfer does.

        Raises:
            Conflict: This connection's chunks are coming already.
            Stalled: The others did not come.
            TransferError: Another connection of it broke.
        """
        if lane.count == 1:
            return await take(stream)
        key = node, digest, offset, lane.count
        gathered = self._open.get(key)
        if gathered is None:
            gathered = self._open[key] = self._gather(key, take)
        if lane.index in gathered.streams:
            raise Conflict("these chunks are coming already, over another connection")
        gathered.streams[lane.index] = stream
        if len(gathered.streams) == lane.count:
            gathered.is_complete.set()
        try:
            await asyncio.wait([gathered.task])
        finally:
            gathered.task.cancel()  # this call broke, or it has ended anyway
        if gathered.task.cancelled():
            raise TransferError("another connection of this transfer broke")
        return gathered.task.result()

    def _gather(self, key: Key, take: Take) -> _Gathered:
        async def run() -> int:
            try:
                try:
                    async with asyncio.timeout(self._gather_s):
                        await gathered.is_complete.wait()
                except TimeoutError:
                    raise Stalled("not all connections of this transfer came") from None
                return await take(woven([gathered.streams[index] for index in range(key[3])]))
            finally:
                if self._open.get(key) is gathered:
                    del self._open[key]

        gathered = _Gathered(asyncio.create_task(run()))
        # Where all calls broke nobody is left to be told how it ended.
        gathered.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return gathered
