"""What neighbours know of each other's models where bodies are differences, and the file that a node keeps it in.

The file has rows of float32 `[d]`, one after the other: the vectors that the run's protocol keeps, then the estimates.
Behind them are the estimates' names and stamps as JSON, and the JSON's length (8 bytes, little-endian).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from covey.artifact import Artifact
from covey.codecs.contract import Codec, CodecContext
from covey.errors import LayoutError, LimitExceeded
from covey.layout import Layout
from covey.learning.models.state import model_sha256
from covey.vectors import BLOCK_ELEMENTS, LinearCombination, TensorVector, Vector, all_finite, spans
from covey.worker.files.mapped import FLOAT32_BYTES, MappedModel, map_bytes
from covey.worker.files.updates import write_vector
from covey.worker.files.writing import ArtifactWriter, raw_bytes

STAMP_BYTES = 32
LENGTH_BYTES = 8
OWN = ""
"""The name of a node's estimate of itself: what its neighbours know of it."""


@dataclass(frozen=True)
class Estimate:
    """What is known of a model.

    Attributes:
        model: float32 `[d]`.
        stamp: What it was made of, 32 bytes: the `model_sha256` of a whole model, then with each difference the SHA-256
            of the stamp before and the codec's bytes. Two that have the same stamp are the same to the bit.
    """

    model: Vector
    stamp: bytes

    @classmethod
    def whole(cls, path: Path, layout: Layout) -> Estimate:
        """A model file's. Raises LayoutError where it is none."""
        return cls(MappedModel(path, layout), bytes.fromhex(model_sha256(path, layout)))

    def moved(self, body: Path, codec: Codec, layout: Layout) -> Estimate:
        """By a body: the codec's bytes, and the stamp of the estimate that it goes on from.

        Raises:
            LayoutError: It is none, or goes on from another estimate.
        """
        data, part = memoryview(map_bytes(body)), layout.part("model")
        written, before = data[:-STAMP_BYTES], data[-STAMP_BYTES:]
        if before != self.stamp:
            raise LayoutError("a body goes on from another estimate than the one that is here")
        try:
            difference = codec.reader(written, part.numel, part)
        except LimitExceeded as error:
            raise LayoutError(str(error)) from error
        model = LinearCombination([(self.model, 1.0), (difference, 1.0)], part.numel)
        return Estimate(model, hashlib.sha256(self.stamp + written).digest())

    def write_body(
        self, path: Path, codec: Codec, model: Vector, context: CodecContext, *, synced: bool = True
    ) -> Artifact:
        """Write what brings the estimate nearer to a model. Raises TaskError where a value is not finite."""
        difference = LinearCombination([(model, 1.0), (self.model, -1.0)], model.d)
        return write_vector(path, codec, difference, context, tail=self.stamp, synced=synced)


@dataclass(frozen=True)
class Estimates:
    """All that a node knows, by the sender's name.

    Attributes:
        layout: The run's.
        codec: The run's.
        known: The estimates.
    """

    layout: Layout
    codec: Codec
    known: Mapping[str, Estimate]

    @property
    def own(self) -> Estimate | None:
        """What its neighbours know of this node; None: nothing yet."""
        return self.known.get(OWN)

    def heard(self, source: str, body: Path) -> Estimates:
        """Those after a body came.

        Raises:
            LayoutError: It is none, or not finite, or goes on from another estimate.
        """
        if body.stat().st_size >= self.layout.file_bytes:
            after = Estimate.whole(body, self.layout)
        elif source in self.known:
            after = self.known[source].moved(body, self.codec, self.layout)
        else:
            raise LayoutError(f"a difference came from {source}, of whom nothing is known here")
        if not all_finite(after.model):
            raise LayoutError("an estimate is not finite")
        return self.having(source, after)

    def having(self, name: str, estimate: Estimate) -> Estimates:
        """With another one."""
        return Estimates(self.layout, self.codec, {**self.known, name: estimate})

    def among(self, peers: Iterable[str]) -> Estimates:
        """Of the node and these."""
        names = {OWN, *peers}
        return Estimates(self.layout, self.codec, {name: self.known[name] for name in self.known if name in names})

    @property
    def stamps(self) -> dict[str, str]:
        """Of each, hexadecimal."""
        return {name: estimate.stamp.hex() for name, estimate in self.known.items()}


def write_rows(out: Path, rows: Iterable[Vector], estimates: Estimates | None, *, synced: bool) -> Artifact:
    """Write vectors that stay, and estimates where there are any to be kept."""
    known = estimates.known.values() if estimates is not None else ()
    with ArtifactWriter(out, synced=synced) as writer:
        for vector in (*rows, *(estimate.model for estimate in known)):
            for columns in spans(vector.d, BLOCK_ELEMENTS):
                writer.write(raw_bytes(vector.read(columns).contiguous()))
        if estimates is not None:
            names = json.dumps(estimates.stamps).encode()
            writer.write(memoryview(names + len(names).to_bytes(LENGTH_BYTES, "little")))
        return writer.close()


def read_rows(path: Path, count: int, layout: Layout, codec: Codec) -> tuple[list[Vector], Estimates]:
    """So many vectors that stay, and the estimates behind them, in a private mapping.

    Raises:
        LayoutError: It is no such file.
    """
    d, size = layout.part("model").numel, os.path.getsize(path)
    with path.open("rb") as file:
        file.seek(max(0, size - LENGTH_BYTES))
        length = int.from_bytes(file.read(), "little")
        rows, rest = divmod(size - LENGTH_BYTES - length, max(1, d * FLOAT32_BYTES))
        if size < LENGTH_BYTES + length or rest:
            raise LayoutError(f"{path.name} has no estimates of models of {d} parameters")
        file.seek(size - LENGTH_BYTES - length)
        stamps = json.loads(file.read(length))
    if rows != count + len(stamps):
        raise LayoutError(f"{path.name} has {rows} vectors, not {count + len(stamps)}")
    whole = torch.from_file(str(path), shared=False, size=rows * d).view(rows, d) if d else torch.empty(rows, 0)
    vectors: list[Vector] = [TensorVector(row) for row in whole]
    known = {
        name: Estimate(vector, bytes.fromhex(stamp))
        for (name, stamp), vector in zip(stamps.items(), vectors[count:], strict=True)
    }
    return vectors[:count], Estimates(layout, codec, known)
