"""Files over gRPC streams: resumed by digest and offset, checked chunk by chunk, failed only by no progress.

The event loop moves bytes between gRPC and a queue; `covey.wire.transfers.chunk_writer` hashes, writes and syncs.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc.aio

from covey.artifact import CHUNK_BYTES, Artifact
from covey.errors import NotFound, Stalled, StoreError, TransferError
from covey.protos import coordinator_pb2
from covey.wire.transfers.chunk_writer import Files, Spool, SpoolWriter
from covey.wire.transfers.chunks import DOWNLOAD, UPLOAD, decode, decoded, download_call, prefix, upload_call
from covey.wire.transfers.lanes import Lane, woven

_WRITE_FAILED = "Internal error from Core"
"""What grpc.aio says, with status INTERNAL, if it sees a write fail before it sees the call's real status."""
Progress = Callable[[int], None]
"""Called on the event loop with the bytes of each chunk as it passes."""


class _Patience:
    """Raises Stalled out of its body when `progressed` is not called for a while."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s, self._limit = stall_s, asyncio.timeout(stall_s)

    async def __aenter__(self) -> _Patience:
        await self._limit.__aenter__()
        return self

    def progressed(self) -> None:
        self._limit.reschedule(asyncio.get_running_loop().time() + self._stall_s)

    def hold(self) -> None:
        """Do not count until `progressed`: the wait is on this side."""
        self._limit.reschedule(None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Stalled(f"no chunk passed for {self._stall_s:g} s") from None


# -- sending


ONLY = Lane()


async def chunks_of(path: Path, size_bytes: int, offset: int = 0, lane: Lane = ONLY) -> AsyncGenerator[bytes]:
    """A file's chunks from `offset` on, as messages ready for the wire: those of one lane.

    Raises:
        TransferError: `offset` is neither the start of a chunk nor the end.
        NotFound: The file is not here any more.
        StoreError: It cannot be read, or is shorter than `size_bytes`.
    """
    if not 0 <= offset <= size_bytes or (offset % CHUNK_BYTES and offset != size_bytes):
        raise TransferError(f"cannot send from byte {offset}: give a whole MiB, at most {size_bytes}")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"the file {path.name} is not here any more") from error
    try:
        for start in lane.starts(offset, size_bytes):
            wanted = min(CHUNK_BYTES, size_bytes - start)
            message = _message_at(fd, start, wanted, flags=os.RWF_NOWAIT)
            yield message or await asyncio.to_thread(_whole_message_at, fd, start, wanted)
    finally:
        os.close(fd)


def _message_at(fd: int, start: int, size_bytes: int, *, flags: int = 0) -> bytes:
    """One chunk as a message; empty if the file is shorter, or (with RWF_NOWAIT) not in the page cache."""
    head = prefix(size_bytes)
    # Read into the message itself: `getvalue` of a BytesIO of unchanged size copies nothing.
    message = io.BytesIO(bytes(len(head) + size_bytes))
    message.write(head)
    with message.getbuffer() as view, view[len(head) :] as data:
        try:
            count = os.preadv(fd, [data], start, flags)
        except OSError:
            if not flags:
                raise
            return b""
    return message.getvalue() if count == size_bytes else b""


def _whole_message_at(fd: int, start: int, size_bytes: int) -> bytes:
    try:
        message = _message_at(fd, start, size_bytes)
    except OSError as error:
        raise StoreError(f"a file to be sent cannot be read: {error.strerror or error}") from error
    if not message:
        raise StoreError("a file to be sent is shorter than it was")
    return message


def serve_download(path: Path, artifact: Artifact, offset: int, lane: Lane = ONLY) -> AsyncGenerator[bytes]:
    """The chunks of a file for the method behind a download; errors as in `chunks_of`."""
    return chunks_of(path, artifact.size_bytes, offset, lane)


async def upload(
    channel: grpc.aio.Channel,
    path: Path,
    artifact: Artifact,
    offset: int,
    *,
    stall_s: float,
    on_progress: Progress | None = None,
    beside: Sequence[grpc.aio.Channel] = (),
    sent_bytes: int = 0,
    method: str = UPLOAD,
) -> int:
    """Send a granted file from `offset` on; returns how many bytes the other side now has, durably.

    Args:
        channel: A connection.
        path: The file.
        artifact: What it is.
        offset: The first byte that is wanted.
        stall_s: How long no chunk may pass.
        on_progress: Told what passes.
        beside: Further connections that carry the same file, at most `covey.wire.transfers.lanes.MAX_LANES` in all.
        sent_bytes: How far an earlier attempt had come, to be told to the other side.
        method: Of which service.

    Raises:
        Stalled: The other side took nothing, or did not answer at the end, for `stall_s`.
        grpc.aio.AioRpcError: The call failed; resuming is the caller's.
        TransferError: The same, but the connection broke in a way that hides why.
        StoreError, NotFound: As `chunks_of`.
    """
    channels = (channel, *beside)
    async with _Patience(stall_s) as patience:

        def passed(count: int) -> None:
            patience.progressed()
            if on_progress is not None:
                on_progress(count)

        metadata = [("covey-digest", artifact.digest), ("covey-offset", str(offset))]
        if sent_bytes > offset:
            metadata.append(("covey-sent", str(sent_bytes)))
        sent = []
        for index, connection in enumerate(channels):
            lane = Lane(index, len(channels))
            place = [("covey-lane", str(lane))] if beside else []
            chunks = chunks_of(path, artifact.size_bytes, offset, lane)
            sent.append(_send(upload_call(connection, method), chunks, [*metadata, *place], passed))
        return (await _all(sent))[0]


async def _send(
    begin: grpc.aio.StreamUnaryMultiCallable[Any, Any],
    chunks: AsyncGenerator[bytes],
    metadata: Sequence[tuple[str, str]],
    passed: Progress,
) -> int:
    call = begin(metadata=tuple(metadata))
    try:
        # A call that is over before all is sent has its reply, or its error, already.
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            async with aclosing(chunks) as messages:
                async for message in messages:
                    await call.write(message)
                    passed(len(decode(message)))
            await call.done_writing()
        return int((await call).received_bytes)
    except grpc.aio.AioRpcError as error:
        if error.details() == _WRITE_FAILED:
            raise TransferError("the call ended while a chunk was on its way") from error
        raise
    finally:
        call.cancel()


async def _all(sent: Sequence[Coroutine[Any, Any, int]]) -> list[int]:
    """Wait for all; the first error ends the others."""
    if len(sent) == 1:
        return [await sent[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sending) for sending in sent]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


# -- receiving


async def receive(
    stream: AsyncIterable[memoryview], spool: Spool, *, offset: int, stall_s: float, on_progress: Progress | None = None
) -> Path:
    """Take a file's chunks from `offset` on into its spool, until it is durable under its final name.

    Whatever goes wrong, what was written stays for the next attempt.

    Raises:
        Stalled: No chunk arrived for `stall_s`. The time that this side's disk takes does not count.
        CorruptChunk: A chunk is not the announced one, or there are too many.
        TransferError: The stream ended too early, began after what is here, or another transfer took over.
        StoreError: The disk is full, or refuses.
    """
    if spool.finished:
        return spool.final
    async with _Patience(stall_s) as patience, SpoolWriter(spool) as writer:
        spool.rewind(offset)
        async for chunk in stream:
            if on_progress is not None:
                on_progress(len(chunk))
            patience.hold()
            await writer.put(chunk)
            patience.progressed()
        patience.hold()
        return await writer.finish()


async def download(
    channel: grpc.aio.Channel,
    artifact: Artifact,
    files: Files,
    *,
    stall_s: float,
    on_progress: Progress | None = None,
    beside: Sequence[grpc.aio.Channel] = (),
    method: str = DOWNLOAD,
) -> Path:
    """Fetch a granted file, from where an earlier attempt broke; returns where it is.

    Args:
        channel: A connection.
        artifact: What is wanted.
        files: Where it comes.
        stall_s: How long no chunk may pass.
        on_progress: Told what passes.
        beside: Further connections that carry the same file, at most `covey.wire.transfers.lanes.MAX_LANES` in all.
        method: Of which service.

    Raises:
        grpc.aio.AioRpcError: The call failed; calling again resumes.
        Stalled, CorruptChunk, TransferError, StoreError: As `receive`.
        LimitExceeded: There is no room for it here.
    """
    spool = await asyncio.to_thread(files.begin, artifact)
    if spool.complete:
        return await asyncio.to_thread(spool.finish)
    channels, offset = (channel, *beside), spool.offset
    async with AsyncExitStack() as stack:
        streams = []
        for index, connection in enumerate(channels):
            place = {"lane": index, "lanes": len(channels)} if beside else {}
            request = coordinator_pb2.DownloadRequest(digest=artifact.digest, offset=offset, **place)
            call = download_call(connection, method)(request)
            stack.callback(call.cancel)
            streams.append(await stack.enter_async_context(aclosing(decoded(call))))
        return await receive(woven(streams), spool, offset=offset, stall_s=stall_s, on_progress=on_progress)
