"""What nodes send each other in place of models to be mixed, and what local training gets of it.

A body has the method's parts, one after the other; where the method sends none it is a model's file, and what is kept
of it are the parameters, float32. A body of parts is good for one later step, a model until the next one comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from torch import Tensor

from covey.artifact import Artifact
from covey.errors import LayoutError
from covey.layout import Layout
from covey.methods.contract import Part
from covey.vectors import all_finite
from covey.worker.files.collected import Sent, newest, read_collected, write_collected
from covey.worker.files.mapped import MappedModel, dtype_of, map_bytes
from covey.worker.files.writing import ArtifactWriter
from covey.worker.jobs.mixtures import MixJob, Portion

log = structlog.get_logger(room="worker")
MOST_EARLY = 16
"""Bodies of one sender that are kept for later steps: of who is further ahead nothing more is kept."""


@dataclass(frozen=True)
class FromPeers:
    """What a run's bodies are.

    Attributes:
        layout: Of the node's own model.
        parts: Those that come from others.
        ahead: For how many steps later than the next a body of parts is.
    """

    layout: Layout
    parts: tuple[Part, ...]
    ahead: int

    @classmethod
    def of(cls, layout: Layout, parts: Sequence[Part], ahead: int) -> FromPeers | None:
        """Of a run's parts; None: nothing comes from others."""
        others = tuple(part for part in parts if part.down and part.audience == "others")
        return cls(layout, others, ahead) if others else None

    @property
    def has_models(self) -> bool:
        """Whether bodies are models."""
        return all(part.up is None for part in self.parts)

    @property
    def size(self) -> int:
        """Bytes of what is kept of a body."""
        return sum(layout.nbytes for layout in self._layouts)

    @property
    def _layouts(self) -> list[Layout]:
        return [part.layout for part in self.parts if part.layout is not None]

    # -- what is sent -----------------------------------------------------------------------------------------------

    def write_body(self, job: MixJob) -> Artifact | None:
        """Make one file of what local training wrote; None: the model is sent."""
        if job.body is None or not job.parts:
            return None
        with ArtifactWriter(job.body, synced=job.synced) as writer:
            for path in job.parts:
                writer.write(memoryview(map_bytes(path)))
            return writer.close()

    # -- what comes -------------------------------------------------------------------------------------------------

    def gather(self, job: MixJob) -> tuple[Artifact | None, tuple[int, ...]]:
        """Take what came to what the node has of its peers.

        Returns:
            The new file, None where there is nothing to write; and positions of portions that cannot be used.
        """
        bodies, refused = read_collected(job.kept, self.size), []
        for position, portion in enumerate(job.portions):
            try:
                bodies[portion.source, portion.step] = self._opened(portion)
            except LayoutError as error:
                log.warning("a body from a peer cannot be used", peer=portion.source, reason=str(error))
                refused.append(position)
        known = {sent for sent in bodies if sent[0] in job.peers}
        kept = newest(known) if self.has_models else {sent for sent in known if self._is_for_later(sent, job.step)}
        if job.out_kept is None or not job.portions:
            return None, tuple(refused)
        chosen = {sent: bodies[sent] for sent in sorted(kept)}
        return write_collected(job.out_kept, chosen, synced=job.synced), tuple(refused)

    def _is_for_later(self, sent: Sent, step: int) -> bool:
        """Whether a body of parts is for a step after this one, and not too far ahead of it."""
        return 0 <= sent[1] + self.ahead - step < self.ahead + MOST_EARLY

    def _opened(self, portion: Portion) -> Tensor:
        """A body, uint8 `[size]`. Raises LayoutError where it is none, or has a number that is not finite."""
        if self.has_models:
            model = MappedModel(portion.model, self.layout)
            if not all_finite(model):
                raise LayoutError("a model has a number that is not finite")
            return model.dense().to(torch.float32).view(torch.uint8)
        size = portion.model.stat().st_size
        if size != self.size:
            raise LayoutError(f"{size} bytes came, and the parts of a body have {self.size}")
        body = torch.from_file(str(portion.model), shared=False, size=size, dtype=torch.uint8)
        for part, values in self._split(body):
            if values.is_floating_point() and not values.isfinite().all():
                raise LayoutError(f"part {part.name!r} has a number that is not finite")
        return body

    # -- what training gets -----------------------------------------------------------------------------------------

    def others(self, path: Path | None, round: int) -> Mapping[str, Mapping[str, Tensor]]:
        """What the recipe of a round, from 1, gets: by part and sender.

        Raises:
            LayoutError: The file is none of `gather`.
        """
        bodies = read_collected(path, self.size)
        due = [sent for sent in bodies if self.has_models or sent[1] + self.ahead + 2 == round]
        others: dict[str, dict[str, Tensor]] = {part.name: {} for part in self.parts}
        for sent in due:
            for part, values in self._split(bodies[sent]):
                others[part.name][sent[0]] = values
        return others

    def _split(self, body: Tensor) -> Iterator[tuple[Part, Tensor]]:
        """Each part's values, flat and in its dtype."""
        at = 0
        for part, layout in zip(self.parts, self._layouts, strict=True):
            raw, dtype = body[at : at + layout.nbytes], dtype_of(layout)
            at += layout.nbytes
            yield part, (raw.clone() if raw.storage_offset() % dtype.itemsize else raw).view(dtype)
