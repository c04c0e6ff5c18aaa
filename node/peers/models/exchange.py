"""Both ways of models between the nodes of a coordinator: brought from those that it names, and lent to others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

import grpc.aio
import structlog
from typing_extensions import override

from covey import messages as msg
from covey.artifact import Artifact
from covey.errors import CoveyError, NotFound
from covey.node.models.assembly import CHUNK_S, Assembled, Unassembled, assemble
from covey.node.models.ports import Lent, PeerModels, Shelf
from covey.node.models.sources import Candidate
from covey.node.peers.calls import chunks_over
from covey.node.peers.models.listener import ModelListener
from covey.protos import peer_pb2 as pb
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.identities.identity import Identity
from covey.wire.pinning import pinned_channel

log = structlog.get_logger(room="peers")
MAX_RUNS = 16
"""Of so many runs a model is lent, and is remembered who lied."""


class ModelShelf(Shelf):
    """The newest model of each run.

    Args:
        files: The node's.
    """

    def __init__(self, files: ArtifactFiles) -> None:
        self._files = files
        self._models: OrderedDict[str, Artifact] = OrderedDict()
        """By run."""

    def put(self, run: str, model: Artifact) -> None:
        """A run's newest model; the one before is not lent any more."""
        self._models.pop(run, None)
        self._models[run] = model
        if len(self._models) > MAX_RUNS:
            self._models.popitem(last=False)

    @contextmanager
    def lend(self, digest: str) -> Iterator[Lent]:
        """As `Shelf.lend`."""
        model = next((model for model in self._models.values() if model.digest == digest), None)
        if model is None or not self._files.has(digest):
            raise NotFound("this node does not have that model")
        yield Lent(self._files.path(digest), model.chunk_sha256)

    def check(self, digest: str) -> bool:
        """As `Shelf.check`."""
        return self._files.check(digest)


class ModelExchange(PeerModels):
    """One node's.

    Args:
        identity: Its keys and certificate.
        files: Where models come, and are.
        listen: Where others call it; empty: it only brings.
        chunk_s: How long a node may take for one chunk.
    """

    def __init__(self, identity: Identity, files: ArtifactFiles, listen: str, *, chunk_s: float = CHUNK_S) -> None:
        self._identity, self._files, self._chunk_s = identity, files, chunk_s
        self._shelf = ModelShelf(files)
        self._listener = ModelListener(listen, lambda: identity, self._shelf) if listen else None
        self._rates: dict[str, float] = {}
        self._liars: OrderedDict[str, set[str]] = OrderedDict()

    # -- bringing ---------------------------------------------------------------------------------------------------

    @override
    async def bring(
        self, run: str, artifact: Artifact, elsewhere: msg.ModelElsewhere, on_bytes: Callable[[int], None]
    ) -> Assembled:
        liars = self._liars.setdefault(run, set())
        if len(self._liars) > MAX_RUNS:
            self._liars.popitem(last=False)
        holders = {member.name: member for member in elsewhere.holders if member.address and member.name not in liars}
        channels: dict[str, grpc.aio.Channel] = {}

        async def ask(source: str, wanted: Artifact, first: int, count: int) -> AsyncGenerator[memoryview, None]:
            request = pb.ChunksRequest(
                digest=wanted.digest,
                first=first,
                count=count,
                statement=elsewhere.statement,
                signature=elsewhere.signature,
            )
            try:
                if source not in channels:
                    channels[source] = await self._channel(holders[source])
                async for chunk in chunks_over(channels[source], request):
                    yield chunk
            except CoveyError:  # it is looked at again: its certificate may be another one now
                if (channel := channels.pop(source, None)) is not None:
                    await channel.close()
                raise

        candidates = [Candidate(name, self._rates.get(name, 0.0)) for name in holders]
        try:
            came = await assemble(artifact, self._files, candidates, ask, chunk_s=self._chunk_s, on_bytes=on_bytes)
        except Unassembled as error:
            liars.update(error.liars)
            raise
        finally:
            for channel in channels.values():
                await channel.close()
        liars.update(came.liars)
        self._rates |= came.bytes_per_s
        log.debug("a model came from other nodes", run=run, **vars(came))
        return came

    async def _channel(self, member: msg.GossipMember) -> grpc.aio.Channel:
        """Raises CoveyError where nobody answers, or somebody else."""
        server, address, pin = f"{member.name}.node.covey", member.address, member.fingerprint
        dummy = f"models {server}"
        return await pinned_channel(address, self._identity, server_name=server, fingerprint=pin, dummy=dummy)

    # -- lending ----------------------------------------------------------------------------------------------------

    @override
    async def have(self, run: str, artifact: Artifact) -> bool:
        self._shelf.put(run, artifact)
        if self._listener is None:
            return False
        try:
            await self._listener.open()
        except CoveyError as error:
            log.warning("no model can be given to other nodes", reason=str(error))
            return False
        return True

    async def yield_port(self) -> None:
        """Something else is to listen where others have models from this node; until the next model is here."""
        if self._listener is not None:
            await self._listener.close()

    async def close(self) -> None:
        """Give nothing to anybody any more."""
        await self.yield_port()
