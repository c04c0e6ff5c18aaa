"""How a node that joins comes by a model: the newest one of a near peer, its chunks from all peers that have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from covey.artifact import Artifact
from covey.errors import CoveyError, Obstructed
from covey.node.models.assembly import CHUNK_S, AskChunks, Assembled, Unassembled, assemble
from covey.node.models.holders import Droppable, Holders
from covey.node.models.sizes import require_size
from covey.node.models.sources import Candidate
from covey.wire.transfers.chunk_writer import Files

log = structlog.get_logger(room="models")


class Kept(Files, Droppable, Protocol):
    """Where models come, and are dropped."""


class ModelCalls(Protocol):
    """Questions to peers about models."""

    async def newest(self, source: str) -> tuple[Artifact, int]:
        """The model that a peer gives to this node, and the step that it is of; nothing of it is checked yet.

        Raises:
            CoveyError: There is none, or the peer cannot be asked.
        """
        ...

    @property
    def ask(self) -> AskChunks:
        """Asks for chunks."""
        ...


@dataclass(frozen=True)
class JoinedModel:
    """A model that came from peers.

    Attributes:
        model: The file; it is here, and is held for the caller, who releases it.
        source: Whose newest it was.
        step: In which that peer published it.
        came: How it came.
    """

    model: Artifact
    source: str
    step: int
    came: Assembled


async def bring_newest(
    candidates: Sequence[Candidate],
    calls: ModelCalls,
    holders: Holders[Kept],
    sizes: range,
    *,
    chunk_s: float = CHUNK_S,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> JoinedModel:
    """Bring the newest model of the first peer that has one, its chunks from every peer that has them.

    Args:
        candidates: Peers that can be asked.
        calls: Asks them.
        holders: Of the files where the model comes.
        sizes: In bytes, that models of the run may have.
        chunk_s: As `assemble`.
        on_bytes: As `assemble`.

    Raises:
        Unassembled: No peer's model came; the text says what each of them did.
        Obstructed: This machine is in the way (its disk is full); no peer is to blame.
    """
    reasons: list[str] = []

    def passed_over(candidate: Candidate, error: CoveyError) -> None:
        log.info("a peer's model does not come", peer=candidate.name, reason=str(error))
        reasons.append(f"{candidate.name}: {error}")

    for candidate in sorted(candidates, key=lambda candidate: candidate.rank):
        try:
            model, step = await calls.newest(candidate.name)
            require_size(model, sizes, "it offers a model")
        except CoveyError as error:  # whatever it says is in the way is in its own
            passed_over(candidate, error)
            continue
        try:
            with holders.holding(model.digest):  # whatever else has the same file may let go of it meanwhile
                came = await assemble(model, holders.files, candidates, calls.ask, chunk_s=chunk_s, on_bytes=on_bytes)
                holders.hold(model.digest)
        except Obstructed:
            raise
        except CoveyError as error:
            passed_over(candidate, error)
        else:
            return JoinedModel(model, candidate.name, step, came)
    raise Unassembled("; ".join(reasons) or "there is no peer that can be asked for a model")
