"""What a node gives to others of its files, and how often: files that it has in use, a few calls at a time.

A file goes to one node at most three times, so who asks for ever has soon had everything that there is; a new model has
another digest. A node that takes nothing is ended by the stream's own limit (`covey.wire.transfers.chunks`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from covey import faults
from covey.artifact import CHUNK_BYTES, DIGEST_BYTES, chunk_count
from covey.errors import InvalidUpdate, NotFound, NotReady
from covey.node.models.ports import Shelf
from covey.wire.transfers.chunks import decode
from covey.wire.transfers.streams import chunks_of

TIMES = 3
"""How often all of a file may go to one node."""
EACH, TOTAL = 2, 16
"""Calls at the same time: of one node, and of all."""
MOST_CHUNKS = 64
"""Of one call."""
REMEMBERED = 4096
"""Of so many pairs of node and file it is known how much went."""


class Lender:
    """Gives chunks of files to other nodes.

    Args:
        shelf: The files.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._calls: Counter[str] = Counter()
        self._went: OrderedDict[tuple[str, str], int] = OrderedDict()
        """Chunks, by node and file."""
        self.sent_bytes = 0

    async def chunks(self, to: str, digest: str, first: int, count: int) -> AsyncGenerator[bytes, None]:
        """Chunks of a file, as messages ready for the wire.

        Args:
            to: Who asks.
            digest: Of the file.
            first: The first chunk, from 0.
            count: How many.

        Raises:
            NotFound: This node lends no such file.
            InvalidUpdate: The file has no such chunks, or they are too many for one call.
            NotReady: It has too many calls, or had the file too often.
        """
        with self._call(to), self._shelf.lend(digest) as lent:
            size_bytes = (await asyncio.to_thread(lent.path.stat)).st_size
            if not 1 <= count <= MOST_CHUNKS or first + count > chunk_count(size_bytes):
                raise InvalidUpdate(
                    f"chunks {first} to {first + count - 1} cannot be given: the file has {chunk_count(size_bytes)}, "
                    f"and one call gives {MOST_CHUNKS} at most"
                )
            if not await asyncio.to_thread(self._shelf.check, digest):
                raise NotFound("this node's file is damaged")
            end, index = min(size_bytes, (first + count) * CHUNK_BYTES), first
            async with aclosing(chunks_of(lent.path, end, first * CHUNK_BYTES)) as messages:
                async for message in messages:
                    await asyncio.to_thread(_require_right, message, lent.chunk_sha256, index)
                    index += 1
                    self._goes(to, digest, chunk_count(size_bytes))
                    faults.reach("model-chunk-out")
                    self.sent_bytes += len(message)
                    yield message

    @contextmanager
    def _call(self, to: str) -> Iterator[None]:
        if self._calls[to] >= EACH or self._calls.total() >= TOTAL:
            raise NotReady("this node gives as many files as it can just now; ask another one, or come back")
        self._calls[to] += 1
        try:
            yield
        finally:
            self._calls[to] -= 1
            if not self._calls[to]:
                del self._calls[to]

    def _goes(self, to: str, digest: str, chunks: int) -> None:
        went = self._went.pop((to, digest), 0) + 1
        self._went[to, digest] = went
        if len(self._went) > REMEMBERED:
            self._went.popitem(last=False)
        if went > TIMES * chunks:
            raise NotReady(f"{to} has had this file {TIMES} times; it is not given again")


def _require_right(message: bytes, chunk_sha256: bytes, index: int) -> None:
    """Raises NotFound where a chunk is not the file's: another file has been written over it."""
    wanted = chunk_sha256[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
    if chunk_sha256 and hashlib.sha256(decode(message)).digest() != wanted:
        raise NotFound("this node does not have that file any more")
