"""What the transfers of one assignment share: the answers to it, reports of progress, patience, downloads."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from covey import faults
from covey.artifact import Artifact
from covey.errors import TransferError
from covey.protos import coordinator_pb2 as pb
from covey.wire.streams import download

if TYPE_CHECKING:
    from covey.node.assignments.executor import Bench

log = structlog.get_logger(room="node")
STALL_S = 30.0
RETRY_S = 0.5
REPORT_S = 0.5


class Transfers:
    """The wire, as one assignment sees it."""

    def __init__(self, bench: Bench, message: pb.Assignment) -> None:
        self.bench, self.message = bench, message
        self.answers: asyncio.Queue[pb.CoordinatorMessage | None] = asyncio.Queue()
        """Grants, receipts and refusals meant for this work; None: ask, or offer, again."""
        self._log = log.bind(run=message.run, round=message.round)

    async def answer_within(self, seconds: float | None) -> pb.CoordinatorMessage | None:
        """The next answer; None: there was none, or something is to be asked again."""
        try:
            async with asyncio.timeout(seconds):
                return await self.answers.get()
        except TimeoutError:
            return None

    async def back_off(self, what: str, error: Exception) -> None:
        """A transfer broke: say so, and wait a little."""
        reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
        self._log.warning(f"{what} interrupted; going on where it broke", reason=reason)
        await asyncio.sleep(RETRY_S * (0.5 + random.random()))

    def report(self, phase: str, step: int, steps: int, loss: float, seconds: float) -> None:
        """Say how far this node is."""
        progress = pb.Progress(
            run=self.message.run,
            round=self.message.round,
            phase=phase,
            step=step,
            steps=steps,
            loss=loss,
            seconds=seconds,
        )
        self.bench.link.send(pb.NodeMessage(progress=progress))

    def meter(self, phase: str, done: int, total: int, point: str) -> Callable[[int], None]:
        """Counts the bytes of a transfer and reports them, in MiB, a few times a second."""
        began = reported = time.monotonic()
        counter = self.bench.metrics.received if phase == "downloading" else self.bench.metrics.sent

        def passed(count: int) -> None:
            nonlocal done, reported
            done, now = done + count, time.monotonic()
            counter.inc(count)
            faults.reach(point)
            if now - reported >= REPORT_S:
                reported = now
                self.report(phase, done >> 20, total >> 20, math.nan, now - began)

        return passed

    async def download(self, artifact: Artifact, data: bytes, *, granted: bool) -> Path:
        """A file of the coordinator's, resumed wherever it broke; `data` is the file if it came along."""
        files = self.bench.files
        if data and not files.has(artifact.digest):
            self.bench.metrics.received.inc(len(data))
            return await asyncio.to_thread(files.put, artifact, data)
        while not files.has(artifact.digest):
            await self.bench.link.connected()
            if not granted and not await self._ask(artifact.digest):
                continue
            try:
                meter = self.meter("downloading", files.offset(artifact), artifact.size_bytes, "node-download-chunk")
                await download(self.bench.link.downloads, artifact, files, stall_s=STALL_S, on_progress=meter)
            except (grpc.aio.AioRpcError, TransferError) as error:
                granted = False
                await self.back_off("download", error)
        return files.path(artifact.digest)

    async def _ask(self, digest: str) -> bool:
        self.bench.link.send(pb.NodeMessage(download=pb.DownloadAsk(digest=digest)))
        while (answer := await self.answer_within(STALL_S)) is not None:
            if answer.WhichOneof("kind") == "download" and answer.download.digest == digest:
                return True
        return False
