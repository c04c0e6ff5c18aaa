"""From a direction to the next version: one walk over the columns, and the change as nodes will decode it.

Base, rows and state vectors are mapped files; a few blocks of a megabyte are all that is held in memory, whatever the
number of nodes and the size of the model.

Where nodes get the committed change instead of the whole model, the change is encoded first, and what it decodes to
is what is committed: nodes that apply it and nodes that download the model then have the same bytes. What the encoding
lost is kept (`residual`) and added to the next change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from covey.aggregation.server_optimizers import ServerOptimizer
from covey.artifact import Artifact
from covey.codecs.contract import Codec, CodecContext
from covey.errors import LayoutError
from covey.layout import Layout
from covey.learning.models.state import ModelFile, ModelWriter
from covey.storage.files.spool import disk_errors
from covey.vectors import BLOCK_ELEMENTS, TensorVector, Vector, spans
from covey.worker.files.mapped import FLOAT32_BYTES, MappedModel, map_bytes, map_float32
from covey.worker.files.updates import write_vector
from covey.worker.files.writing import ArtifactWriter, Overlap, raw_bytes
from covey.worker.jobs.files import WrittenFile

OPTIMIZER, AGGREGATOR = "optimizer/", "aggregator/"
CHANGE, RESIDUAL, BROADCAST = "change", "residual", "broadcast"


@dataclass(frozen=True)
class StepFiles:
    """Where a step reads and writes.

    Attributes:
        state: The base version's state files by slot; empty before the first step.
        out: The new model file.
        out_state: The new state files by slot.
    """

    state: Mapping[str, Path]
    out: Path
    out_state: Mapping[str, Path]


@dataclass(frozen=True)
class Step:
    """What is to be done to the base.

    Attributes:
        number: Of the server optimizer's steps, from 1.
        direction: Where the model is to go, float32 `[d]`.
        sign: -1 where the direction is a gradient.
        buffers: Raw values of part `buffers`, uint8.
        optimizer: The server optimizer, `begin` called.
        kept: What the rule wants to keep, by name.
        change: The codec of the committed change with its context; None: no change is made.
    """

    number: int
    direction: Vector
    sign: float
    buffers: Tensor
    optimizer: ServerOptimizer
    kept: Mapping[str, Vector]
    change: tuple[Codec, CodecContext] | None = None


def make_version(
    files: StepFiles, layout: Layout, base: MappedModel, step: Step, each_block: Callable[[], object]
) -> tuple[ModelFile, tuple[WrittenFile, ...]]:
    """Write the next model and its state files, synced.

    Args:
        files: The paths.
        layout: The run's.
        base: The version that is stepped from.
        step: What to do.
        each_block: Called before each block; what it raises ends the walk.

    Raises:
        LayoutError: A state file is missing or has another size.
    """
    if step.change is None:
        with ExitStack() as stack:
            model = stack.enter_context(ModelWriter(files.out, layout))
            write = lambda columns, block: _write_all(model, base.as_stored(columns, block))  # noqa: E731
            state = _walk(files, base, step, lambda columns: base.read(columns), write, each_block)
            model.write_tensor(step.buffers)
            return model.close(), state
    return _through_change(files, layout, base, step, step.change, each_block)


def copy_version(out: Path, layout: Layout, base: MappedModel) -> ModelFile:
    """Write a version that is the same as its base."""
    with ModelWriter(out, layout) as model:
        for columns in spans(base.d, BLOCK_ELEMENTS):
            _write_all(model, base.as_stored(columns, base.read(columns)))
        model.write_tensor(base.raw_buffers)
        return model.close()


def open_change(path: Path, codec: Codec, layout: Layout) -> tuple[Vector, Tensor]:
    """A change file: the model part's change, and the raw buffers of the new version behind it.

    Raises:
        LayoutError: It is not of this layout.
        LimitExceeded: It is too long.
    """
    part = layout.part("buffers")
    data = map_bytes(path)
    size = memoryview(data).nbytes - part.nbytes
    if size < 0:
        raise LayoutError(f"a change of {size + part.nbytes} bytes is too short for {part.nbytes} bytes of buffers")
    buffers = torch.frombuffer(bytearray(memoryview(data)[size:]), dtype=torch.uint8) if part.nbytes else torch.empty(0)
    part = layout.part("model")
    return codec.reader(memoryview(data)[:size], part.numel, part), buffers.to(torch.uint8)


def write_model(
    out: Path,
    layout: Layout,
    base: MappedModel,
    change: Vector,
    buffers: Tensor,
    *,
    synced: bool = True,
    behind: Sequence[Vector] = (),
    stamp: int = 0,
    named: bool = True,
    each: Callable[[Tensor], None] = lambda block: None,
) -> ModelFile:
    """The model file that a change leads to, with vectors behind it; on disk when this returns, if it is `synced`.

    `each` is shown the change block by block, in order; what it raises ends the writing. `named` as for `ModelWriter`.
    """
    with ModelWriter(out, layout, synced=synced, behind=len(behind), named=named) as model:
        with Overlap() as writing:
            for columns in spans(base.d, BLOCK_ELEMENTS):
                block = change.read(columns)
                each(block)
                pieces = base.as_stored(columns, base.read(columns) + block)
                writing.submit(partial(_write_all, model, pieces))
        model.write_tensor(buffers)
        if behind:
            model.write_stamp(stamp)
        for vector in behind:
            for columns in spans(vector.d, BLOCK_ELEMENTS):
                model.write_behind(vector.read(columns))
        return model.close()


def _through_change(
    files: StepFiles,
    layout: Layout,
    base: MappedModel,
    step: Step,
    coding: tuple[Codec, CodecContext],
    each_block: Callable[[], object],
) -> tuple[ModelFile, tuple[WrittenFile, ...]]:
    codec, context = coding
    keeps = RESIDUAL in files.out_state
    # Without a residual the wanted change needs a place for a while: where the model will be.
    path = files.out_state[RESIDUAL] if keeps else files.out
    wanted = _sized(path, base.d)
    old = map_float32(files.state[RESIDUAL], base.d) if keeps and RESIDUAL in files.state else None
    zeros = torch.zeros(min(base.d, BLOCK_ELEMENTS))

    def note(columns: slice, block: Tensor) -> None:
        wanted[columns] = block if old is None else block + old[columns]

    state = _walk(files, base, step, lambda columns: zeros[: columns.stop - columns.start], note, each_block)
    written = write_vector(files.out_state[CHANGE], codec, TensorVector(wanted), context, tail=raw_bytes(step.buffers))
    change, buffers = open_change(files.out_state[CHANGE], codec, layout)
    files_made = [WrittenFile(CHANGE, files.out_state[CHANGE], written)]
    if keeps:
        files_made.append(WrittenFile(RESIDUAL, path, _keep_lost(path, wanted, change)))
    return write_model(files.out, layout, base, change, buffers), (*state, *files_made)


def _keep_lost(path: Path, wanted: Tensor, change: Vector) -> Artifact:
    """Replace the wanted change by what its encoding lost, in place."""
    for columns in spans(change.d, BLOCK_ELEMENTS):
        wanted[columns] -= change.read(columns)
    with ArtifactWriter(path) as writer:
        for columns in spans(change.d, BLOCK_ELEMENTS):
            writer.write(raw_bytes(wanted[columns]))
        return writer.close()


def _sized(path: Path, d: int) -> Tensor:
    """A file of `d` float32 as memory that can be written; all its disk is taken first, as a full one would kill us.

    Raises:
        StoreError: The disk is full, or refuses.
    """
    if not d:
        return torch.empty(0)
    with disk_errors(path), path.open("a+b") as file:
        file.truncate(d * FLOAT32_BYTES)
        os.posix_fallocate(file.fileno(), 0, d * FLOAT32_BYTES)
    return torch.from_numpy(np.memmap(path, dtype="<f4", mode="r+", shape=(d,)))


def _walk(
    files: StepFiles,
    base: MappedModel,
    step: Step,
    start: Callable[[slice], Tensor],
    take: Callable[[slice, Tensor], None],
    each_block: Callable[[], object],
) -> tuple[WrittenFile, ...]:
    """Step through all columns once from what `start` gives, hand the result to `take`, and write the state files."""
    with ExitStack() as stack:
        vectors = [_StateVector(files, slot, base.d, step.number, stack) for slot in step.optimizer.slots]
        kept = {name: _Kept(files, name, vector, stack) for name, vector in step.kept.items()}
        with ExitStack() as threads:
            writing = threads.enter_context(Overlap())
            saving = [threads.enter_context(Overlap()) for _ in vectors]
            for columns in spans(base.d, BLOCK_ELEMENTS):
                each_block()
                for tensor in kept.values():
                    tensor.follow(columns, base.d)
                block = step.direction.read(columns)
                state = {vector.slot: vector.read(columns) for vector in vectors}
                step_block = block if step.sign > 0 else -block
                values = step.optimizer.step_block(start(columns), step_block, state, step.number)
                writing.submit(partial(take, columns, values))
                for vector, thread in zip(vectors, saving, strict=True):
                    thread.submit(partial(vector.write, state[vector.slot]))
        return tuple(vector.close() for vector in vectors) + tuple(tensor.close(base.d) for tensor in kept.values())


def _write_all(model: ModelWriter, pieces: list[Tensor]) -> None:
    for piece in pieces:
        model.write_tensor(piece)


def _place(files: StepFiles, slot: str) -> Path:
    if slot not in files.out_state:
        raise LayoutError(f"no file was named for the state {slot!r}")
    return files.out_state[slot]


class _Kept:
    """A vector that the rule keeps: of the model's size it is written along with the walk, else at its end."""

    def __init__(self, files: StepFiles, name: str, vector: Vector, stack: ExitStack) -> None:
        self._slot, self._vector = AGGREGATOR + name, vector
        self._path = _place(files, self._slot)
        self._writer = stack.enter_context(ArtifactWriter(self._path))

    def follow(self, columns: slice, d: int) -> None:
        """Write the same columns."""
        if self._vector.d == d:
            self._writer.write(raw_bytes(self._vector.read(columns).contiguous()))

    def close(self, d: int) -> WrittenFile:
        """The finished file."""
        if self._vector.d != d:
            self._writer.write(raw_bytes(self._vector.dense()))
        return WrittenFile(self._slot, self._path, self._writer.close())


class _StateVector:
    """A state vector of the server optimizer: read from the last version's file, written to the next one's."""

    def __init__(self, files: StepFiles, slot: str, d: int, number: int, stack: ExitStack) -> None:
        self.slot, name = slot, OPTIMIZER + slot
        self._name, self._path = name, _place(files, name)
        if number > 1 and name not in files.state:
            raise LayoutError(f"there is no file of the server optimizer's state {slot!r}")
        self._old = map_float32(files.state[name], d) if number > 1 else None
        self._writer = stack.enter_context(ArtifactWriter(self._path))

    def read(self, columns: slice) -> Tensor:
        """Float32 `[b]`, to be changed in place; undefined in the first step, as the contract has it."""
        if self._old is None:
            return torch.empty(columns.stop - columns.start)
        return self._old[columns].clone()

    def write(self, block: Tensor) -> None:
        """Append a block of new values."""
        self._writer.write(raw_bytes(block))

    def close(self) -> WrittenFile:
        """The finished file."""
        return WrittenFile(self._name, self._path, self._writer.close())
