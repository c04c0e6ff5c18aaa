"""The file that a gossip run begins with: asked for until it may be had, and had from where it broke."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from covey import messages as msg
from covey.artifact import Artifact, artifact_of
from covey.errors import CorruptChunk, LimitExceeded, TransferError
from covey.node.gossip_models import GivenModels
from covey.node.ports import OnBytes
from covey.storage.files.artifacts import ArtifactFiles

DATA = b"values" * 100
MODEL = artifact_of([DATA])


class Coordinator:
    """The link to it, and its files: grants are as told, and some transfers break."""

    up = True

    def __init__(self, *, table: bytes = MODEL.chunk_sha256, breaks: int = 0) -> None:
        self.table, self.breaks = table, breaks
        self.asked: list[msg.NodeMessage] = []
        self.given = GivenModels(self, self.open, 10_000)

    def send(self, message: msg.NodeMessage) -> None:
        self.asked.append(message)
        self.given.granted(msg.DownloadGrant("0" * 64, b""))  # of another file
        if len(self.asked) == 1:
            self.given.ask_again()  # a new session: this question was not heard
        else:
            self.given.granted(msg.DownloadGrant(MODEL.digest, self.table))

    async def connected(self) -> None:
        """It is."""

    @asynccontextmanager
    async def open(self, files: ArtifactFiles) -> AsyncIterator[Coordinator]:
        self.files = files
        yield self

    async def download(self, artifact: Artifact, on_bytes: OnBytes) -> None:
        if self.breaks:
            self.breaks -= 1
            raise TransferError("it broke")
        self.files.put(artifact, DATA)

    async def upload(self, path: Path, artifact: Artifact, offset: int, on_bytes: OnBytes) -> None:
        raise AssertionError("nothing goes up")


async def test_it_is_asked_for_until_it_is_here_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covey.node.gossip_models.RETRY_S", 0)
    files, coordinator = ArtifactFiles(tmp_path, durable=False), Coordinator(breaks=1)
    async with asyncio.timeout(60):
        path = await coordinator.given.bring(MODEL.digest, MODEL.size_bytes, files)
        assert path.read_bytes() == DATA
        assert coordinator.asked == [msg.DownloadAsk(MODEL.digest, with_table=True)] * 3
        assert await coordinator.given.bring(MODEL.digest, MODEL.size_bytes, files) == path
    assert len(coordinator.asked) == 3


async def test_what_is_too_large_or_is_not_that_file_is_refused(tmp_path: Path) -> None:
    files, coordinator = ArtifactFiles(tmp_path, durable=False), Coordinator(table=bytes(32))
    async with asyncio.timeout(60):
        with pytest.raises(LimitExceeded, match=r"disk_gib in this node's node\.toml"):
            await coordinator.given.bring(MODEL.digest, 10_001, files)
        with pytest.raises(CorruptChunk):
            await coordinator.given.bring(MODEL.digest, MODEL.size_bytes, files)
