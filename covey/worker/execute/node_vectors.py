"""A gossip node's vectors: those that travel are behind its model, those that stay in a file of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from covey.artifact import Artifact
from covey.codecs.contract import Codec
from covey.errors import LayoutError
from covey.gossip.protocols.contract import ESTIMATE, Received, State, Update
from covey.layout import Layout
from covey.learning.models.state import map_behind
from covey.vectors import LinearCombination, TensorVector, Vector, all_finite
from covey.worker.execute.coded_bodies import open_body
from covey.worker.files.estimates import Estimates, read_rows, write_rows
from covey.worker.files.mapped import MappedModel, map_float32
from covey.worker.jobs.mixtures import Portion


@dataclass(frozen=True)
class NodeVectors:
    """Which vectors a run has beside the model.

    Attributes:
        layout: Of the model.
        travels: Those that travel, in the order of the file; None: what is behind a model is not looked at.
        keeps: Those that stay.
        codec: What bodies are written with; None: they are models as they are.
        differences: Whether bodies with a codec are differences.
    """

    layout: Layout
    travels: tuple[str, ...] | None = None
    keeps: tuple[str, ...] = ()
    codec: Codec | None = None
    differences: bool = False

    def state(self, base: Path, kept: Path | None) -> State[Vector]:
        """What a node has; the first model has no vectors yet.

        Raises:
            LayoutError: A file is of another size, or of another layout.
        """
        model, behind = MappedModel(base, self.layout), map_behind(base, self.layout)
        vectors = self._named(behind.vectors) if behind.vectors else {}
        if (codec := self._estimating) is not None:
            rows, estimates = self._rows(kept, codec)
            vectors |= dict(zip(self.keeps, rows, strict=False))
            if estimates.own is not None:
                vectors[ESTIMATE] = estimates.own.model
        elif kept is not None:
            whole = map_float32(kept, len(self.keeps) * model.d).view(len(self.keeps), model.d)
            vectors |= {name: TensorVector(row) for name, row in zip(self.keeps, whole, strict=True)}
        return State(model, vectors, behind.stamp)

    def estimates(self, kept: Path | None) -> Estimates | None:
        """What a node knows of its peers, and they of it; None: bodies are no differences. Raises as `state`."""
        codec = self._estimating
        return None if codec is None else self._rows(kept, codec)[1]

    @property
    def _estimating(self) -> Codec | None:
        return self.codec if self.differences else None

    def _rows(self, kept: Path | None, codec: Codec) -> tuple[list[Vector], Estimates]:
        if kept is None:
            return [], Estimates(self.layout, codec, {})
        return read_rows(kept, len(self.keeps), self.layout, codec)

    def received(self, portion: Portion) -> Received[Vector]:
        """What came from a peer. Raises LayoutError where it is no body of this run.

        In a run with a codec that is an encoded model, or a whole one, as a node that leaves sends it.
        """
        if self.codec is not None and portion.model.stat().st_size < self.layout.file_bytes:
            return Received(portion.share, open_body(portion.model, self.layout, self.codec))
        behind = map_behind(portion.model, self.layout)
        return Received(
            portion.share, MappedModel(portion.model, self.layout), self._named(behind.vectors), behind.stamp
        )

    def _named(self, vectors: tuple[Tensor, ...]) -> dict[str, Vector]:
        if self.travels is None:
            return {}
        if len(vectors) != len(self.travels):
            raise LayoutError(f"{len(vectors)} vectors are behind a model; this run has {len(self.travels)}")
        return {name: TensorVector(row) for name, row in zip(self.travels, vectors, strict=True)}

    def behind(self, state: State[Vector], update: Update[Vector], d: int) -> list[Vector]:
        """What travels after an update, in the order of the file."""
        return [self._newest(name, state, update, d) for name in self.travels or ()]

    def write_kept(
        self,
        out: Path | None,
        state: State[Vector],
        update: Update[Vector],
        d: int,
        *,
        synced: bool,
        estimates: Estimates | None = None,
        is_moved: bool = False,
    ) -> Artifact | None:
        """Write the vectors that stay, if an update changes any, or estimates moved; their file's artifact."""
        if out is None or not (is_moved or any(name in update.vectors for name in self.keeps)):
            return None
        rows = [self._newest(name, state, update, d) for name in self.keeps]
        return write_rows(out, rows, estimates, synced=synced)

    def _newest(self, name: str, state: State[Vector], update: Update[Vector], d: int) -> Vector:
        vector = update.vectors.get(name, state.vectors.get(name))
        return vector if vector is not None else LinearCombination([], d)


def is_finite(received: Received[Vector]) -> bool:
    """Whether everything that came in a body is a finite number."""
    return all_finite(received.model) and are_finite(received.vectors)


def are_finite(vectors: Mapping[str, Vector]) -> bool:
    """Whether all of these are finite numbers."""
    return all(all_finite(vector) for vector in vectors.values())
