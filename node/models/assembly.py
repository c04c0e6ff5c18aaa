"""A file put together from chunks that several nodes give, each checked before anything is done with it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from covey import faults
from covey.artifact import CHUNK_BYTES, Artifact, chunk_count
from covey.driver.ending import end
from covey.errors import CorruptChunk, CoveyError, Stalled, TransferError
from covey.node.models.sources import Ask, Candidate, Failure, Sources
from covey.wire.transfers.chunk_writer import Files, SpoolWriter

log = structlog.get_logger(room="models")
CHUNK_S = 10.0
"""How long a source may take for one chunk; the first one includes making the connection."""
AGAIN_S = 0.2
"""How long a source that failed is left alone at least."""
_COUNTED: tuple[Failure, Failure] = ("unreachable", "broke")


class AskChunks(Protocol):
    """Asks a node for chunks of a file."""

    def __call__(self, source: str, artifact: Artifact, first: int, count: int, /) -> AsyncGenerator[memoryview, None]:
        """The bytes of chunks `first` to `first + count - 1`, in order; whatever they are.

        Raises:
            CoveyError: There are none, or no more of them.
        """
        ...


@dataclass(frozen=True)
class Assembled:
    """How a file came.

    Attributes:
        given: Bytes by source, of chunks that were of use.
        liars: Who gave other bytes than the file's.
        unreachable: How often a source could not be asked, or had nothing of it.
        broken: How often a source gave something, and then no more.
        bytes_per_s: The rate of each source, as measured.
    """

    given: dict[str, int]
    liars: tuple[str, ...]
    unreachable: int
    broken: int
    bytes_per_s: dict[str, float] = field(default_factory=dict)


class Unassembled(TransferError):
    """A file did not come whole from other nodes; what came stays, and the next attempt goes on from there.

    Attributes:
        liars: Who gave other bytes than the file's.
    """

    def __init__(self, text: str, liars: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.liars = liars


async def assemble(
    artifact: Artifact,
    files: Files,
    candidates: Iterable[Candidate],
    ask: AskChunks,
    *,
    chunk_s: float = CHUNK_S,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Assembled:
    """Bring a file here from several nodes at once, from where an earlier attempt broke.

    Args:
        artifact: The file; validated.
        files: Where it comes.
        candidates: Who may have it.
        ask: Asks one of them.
        chunk_s: How long a source may take for one chunk, in seconds.
        on_bytes: Told of the bytes of each chunk that was of use.

    Raises:
        Unassembled: Nobody is left who could be asked; what came stays for the next attempt.
        StoreError: The disk is full, or refuses.
    """
    spool = await asyncio.to_thread(files.begin, artifact)
    sources = Sources(chunk_count(artifact.size_bytes), spool.offset // CHUNK_BYTES, candidates)
    assembly = _Assembly(artifact, sources, ask, chunk_s, on_bytes)
    if spool.finished:
        return assembly.tally()
    async with SpoolWriter(spool) as writer:
        spool.rewind(sources.written * CHUNK_BYTES)
        await assembly.run(writer)
        await writer.finish()
    return assembly.tally()


class _Assembly:
    def __init__(
        self, artifact: Artifact, sources: Sources, ask: AskChunks, chunk_s: float, on_bytes: Callable[[int], None]
    ) -> None:
        self._artifact, self._sources, self._ask, self._chunk_s = artifact, sources, ask, chunk_s
        self._on_bytes = on_bytes
        self._waiting: dict[int, memoryview] = {}
        """Chunks that came before their turn."""
        self._given: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def tally(self) -> Assembled:
        """How it came."""
        failures = self._sources.failures
        unreachable, broken = (sum(n for (_, kind), n in failures.items() if kind == how) for how in _COUNTED)
        return Assembled(dict(self._given), self._sources.liars, unreachable, broken, self._sources.rates)

    async def run(self, writer: SpoolWriter) -> None:
        try:
            while not self._sources.is_whole:
                self._changed.clear()
                while (chunk := self._waiting.pop(self._sources.written, None)) is not None:
                    await writer.put(chunk)
                    self._sources.wrote(self._sources.written)
                while (question := self._sources.next()) is not None:
                    self._begin(question)
                if self._sources.is_lost and not self._tasks:
                    raise Unassembled(
                        f"no node is left that gives the file {self._artifact.digest[:12]}...: {self._sources.tell()}",
                        self._sources.liars,
                    )
                if not self._sources.is_whole:
                    await self._changed.wait()
        finally:
            await end(self._tasks)

    def _begin(self, question: Ask) -> None:
        task = asyncio.create_task(self._question(question))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()

    async def _question(self, question: Ask) -> None:
        name, came = question.source, 0
        chunks = self._ask(name, self._artifact, question.first, question.count)
        try:
            async with aclosing(chunks) as stream:
                for index in range(question.first, question.first + question.count):
                    began = time.monotonic()
                    chunk = await self._next(stream)
                    await asyncio.to_thread(self._check, index, chunk)
                    came += 1
                    self._take(name, index, chunk, time.monotonic() - began)
        except CorruptChunk as error:
            self._failed(name, "lied", error)
        except (CoveyError, OSError) as error:
            await asyncio.sleep(AGAIN_S)
            self._failed(name, "broke" if came else "unreachable", error)
        else:
            self._sources.answered(name)

    async def _next(self, stream: AsyncGenerator[memoryview, None]) -> memoryview:
        try:
            async with asyncio.timeout(self._chunk_s):
                return await anext(stream)
        except TimeoutError:
            raise Stalled(f"no chunk came for {self._chunk_s:g} s") from None
        except StopAsyncIteration:
            raise TransferError("it gave fewer chunks than it was asked for") from None

    def _check(self, index: int, chunk: memoryview) -> None:
        artifact = self._artifact
        is_right = hashlib.sha256(chunk).digest() == artifact.chunk_digest(index)
        if len(chunk) != artifact.chunk_size(index) or not is_right:
            raise CorruptChunk(f"chunk {index} does not have the announced digest")

    def _take(self, name: str, index: int, chunk: memoryview, seconds: float) -> None:
        faults.reach("model-chunk")
        if self._sources.came(name, index, len(chunk) / max(seconds, 1e-6)):
            self._waiting[index] = chunk
            self._given[name] += len(chunk)
            self._on_bytes(len(chunk))
        self._changed.set()

    def _failed(self, name: str, kind: Failure, error: Exception) -> None:
        self._sources.failed(name, kind)
        level = log.warning if kind == "lied" else log.info
        level("a node did not give the chunks that it was asked for", peer=name, how=kind, reason=str(error))
