"""A trained model as the parts of an update: one pass that subtracts, checks, encodes, hashes and writes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path

from torch import Tensor

from covey.aggregation.buffers import not_finite_at
from covey.artifact import Artifact
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.errors import TaskError
from covey.layout import Layout
from covey.vectors import BLOCK_ELEMENTS, ComputedVector, Vector, is_finite, spans
from covey.worker.files.mapped import MappedModel, dtype_of
from covey.worker.files.writing import ArtifactWriter, Overlap, raw_bytes


def write_vector(
    path: Path,
    codec: Codec,
    source: Vector,
    context: CodecContext,
    tail: Buffer = b"",
    *,
    synced: bool = True,
    hashed: bool = True,
) -> Artifact:
    """Encode a vector into a file, with `tail` behind it; `synced` and `hashed` as for `ArtifactWriter`.

    Raises:
        TaskError: A value is not finite.
    """
    with ArtifactWriter(path, synced=synced, hashed=hashed) as writer:
        with Overlap() as overlap:
            for piece in codec.encode(source, context):
                # A piece is valid until the next is asked for, and by then this one may still wait.
                overlap.submit(partial(writer.write, memoryview(bytes(piece))))
        writer.write(memoryview(tail))
        return writer.close()


def write_raw(path: Path, source: Vector) -> Artifact:
    """A vector as raw float32, into a synced file."""
    with ArtifactWriter(path) as writer:
        for columns in spans(source.d, BLOCK_ELEMENTS):
            writer.write(raw_bytes(source.read(columns).contiguous()))
        return writer.close()


def write_bytes(path: Path, content: bytes, *, synced: bool = True) -> Artifact:
    """Bytes as they are, into a file."""
    with ArtifactWriter(path, synced=synced) as writer:
        writer.write(memoryview(content))
        return writer.close()


def write_tensors(
    path: Path, layout: Layout, tensors: Mapping[str, Tensor], before: Mapping[str, Tensor], *, synced: bool = True
) -> Artifact:
    """Raw values of a layout's tensors in their own dtypes, into a file.

    Args:
        path: The file.
        layout: Which tensors.
        tensors: By name, on any device.
        before: What they were, as far as that is known: values that were not finite (a mask) may stay as they were.
        synced: As of `ArtifactWriter`.

    Raises:
        TaskError: Another value is not finite.
    """
    with ArtifactWriter(path, synced=synced) as writer:
        for spec in layout.tensors:
            values, old = tensors[spec.name].cpu().contiguous().reshape(-1), before.get(spec.name)
            if not_finite_at(values, None if old is None else old.contiguous().reshape(-1)) is not None:
                raise TaskError(
                    f"training diverged: the model's {spec.name!r} has values that are not finite, and were not so "
                    "before; lower training.learning_rate, set training.clip_norm, or look for NaN in this node's data"
                )
            writer.write(raw_bytes(values))
        return writer.close()


def write_flat(path: Path, layout: Layout, values: Tensor, *, synced: bool = True) -> Artifact:
    """A flat vector of a part's layout, into a file.

    Raises:
        TaskError: It has another length or dtype, or a value that is not finite.
    """
    if values.shape != (layout.numel,) or values.dtype != dtype_of(layout):
        form = f"{values.dtype} {list(values.shape)}"
        raise TaskError(f"a vector of {dtype_of(layout)} [{layout.numel}] was declared, and {form} was made")
    with ArtifactWriter(path, synced=synced) as writer:
        values = values.cpu().contiguous()
        writer.write(raw_bytes(require_finite(values) if values.is_floating_point() else values))
        return writer.close()


class ModelVector(ComputedVector):
    """Part `model` of a layout over tensors in memory: one vector of float32 on the CPU.

    A tensor that is missing (the gradient of a frozen parameter) counts as zeros.

    Args:
        layout: The run's.
        tensors: By name, of any dtype, on any device.
        base: What is subtracted, or None.
    """

    def __init__(self, layout: Layout, tensors: Mapping[str, Tensor], base: MappedModel | None = None) -> None:
        self._specs = layout.part("model").tensors
        self._ends = list(accumulate(spec.numel for spec in self._specs))
        super().__init__(self._ends[-1] if self._ends else 0)
        self._tensors, self._base = tensors, base

    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` into `out`.

        Raises:
            TaskError: A value is not finite.
        """
        block = out
        at, index = columns.start, bisect_right(self._ends, columns.start)
        while at < columns.stop:
            spec, end = self._specs[index], min(self._ends[index], columns.stop)
            first = self._ends[index] - spec.numel
            tensor, piece = self._tensors.get(spec.name), block[at - columns.start : end - columns.start]
            if tensor is None:
                piece.zero_()
            else:
                piece.copy_(tensor.detach().reshape(-1)[at - first : end - first])
            at, index = end, index + 1
        if self._base is not None:
            block.sub_(self._base.read(columns))
        require_finite(block)


def require_finite(block: Tensor) -> Tensor:
    """The block itself.

    Raises:
        TaskError: It has a value that is NaN or infinite.
    """
    if not is_finite(block):
        raise TaskError(
            "training diverged: the local model has values that are not finite; lower "
            "training.learning_rate, set training.clip_norm, or look for NaN in this node's data"
        )
    return block
