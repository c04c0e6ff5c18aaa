"""The file that a gossip run begins with: had once, by digest, from the coordinator that handed the run out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog

from covey import messages as msg
from covey.artifact import Artifact
from covey.errors import DiskFull, LimitExceeded, TransferError
from covey.node.ports import Bulk, Link
from covey.storage.files.artifacts import ArtifactFiles

log = structlog.get_logger(room="gossip")
ASK_S = 10.0
"""Without an answer the coordinator is asked again after so long: it may just be taking up the run."""
RETRY_S = 1.0
BulkInto = Callable[[ArtifactFiles], AbstractAsyncContextManager[Bulk]]
"""Opens connections over which files come into these."""


class GivenModels:
    """Brings such files, each into the files of its run.

    Args:
        link: To the coordinator.
        bulk: Opens the connections for files.
        most_bytes: The largest file that this node takes.
    """

    def __init__(self, link: Link, bulk: BulkInto, most_bytes: float) -> None:
        self._link, self._bulk, self._most_bytes = link, bulk, most_bytes
        self._awaited: dict[str, asyncio.Queue[msg.DownloadGrant | None]] = {}

    def granted(self, grant: msg.DownloadGrant) -> None:
        """The coordinator says that a file may be had now."""
        if (awaited := self._awaited.get(grant.digest)) is not None:
            awaited.put_nowait(grant)

    def ask_again(self) -> None:
        """There is a new session: what was asked may have been overheard."""
        for awaited in self._awaited.values():
            awaited.put_nowait(None)

    async def bring(self, digest: str, size_bytes: int, files: ArtifactFiles) -> Path:
        """The file, from wherever it broke before.

        Raises:
            LimitExceeded: It is larger than this node takes.
            DiskFull: There is no room for it.
            CorruptChunk: What is announced is not that file.
            StoreError: The disk refuses.
        """
        if await asyncio.to_thread(files.check, digest):
            return files.path(digest)
        text = f"the model that the run begins with has {size_bytes} bytes"
        if not 0 < size_bytes <= self._most_bytes:
            raise LimitExceeded(f"{text}, and limits.disk_gib in this node's node.toml allows {self._most_bytes:.0f}")
        if size_bytes > (free := files.free_bytes()):
            raise DiskFull(f"{text}, and {free} are free; free some")
        awaited = self._awaited[digest] = asyncio.Queue()
        try:
            async with self._bulk(files) as bulk:
                while not await asyncio.to_thread(files.check, digest):
                    if (grant := await self._ask(digest, awaited)) is not None:
                        await self._download(bulk, Artifact(digest, size_bytes, grant.chunk_sha256))
        finally:
            del self._awaited[digest]
        return files.path(digest)

    async def _ask(self, digest: str, awaited: asyncio.Queue[msg.DownloadGrant | None]) -> msg.DownloadGrant | None:
        """Ask for a grant with the chunks' digests; None: it is to be asked again."""
        await self._link.connected()
        self._link.send(msg.DownloadAsk(digest, with_table=True))
        try:
            async with asyncio.timeout(ASK_S):
                return await awaited.get()
        except TimeoutError:
            return None

    async def _download(self, bulk: Bulk, artifact: Artifact) -> None:
        artifact.validate(artifact.size_bytes)
        log.info("downloading the model that the run begins with", digest=artifact.digest, bytes=artifact.size_bytes)
        try:
            await bulk.download(artifact, lambda count: None)
        except TransferError as error:
            log.warning("download interrupted; going on where it broke", reason=str(error))
            await asyncio.sleep(RETRY_S)
