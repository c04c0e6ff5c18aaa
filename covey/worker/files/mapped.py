"""Files of numbers seen through memory maps: read where they are needed, never copied whole into memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import torch
from torch import Tensor

from covey.errors import LayoutError
from covey.layout import Layout
from covey.learning.models import state
from covey.vectors import Vector, placed

FLOAT32_BYTES = 4


def map_bytes(path: Path) -> mmap.mmap | bytes:
    """The bytes of a file, mapped read-only; of an empty file, none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ) if os.fstat(fd).st_size else b""
    finally:
        os.close(fd)


def map_float32(path: Path, numel: int) -> Tensor:
    """A file of `numel` little-endian float32 values as a tensor `[numel]`.

    Raises:
        LayoutError: The file has another size.
    """
    size = path.stat().st_size
    if size != numel * FLOAT32_BYTES:
        raise LayoutError(f"{path.name} has {size} bytes; {numel} float32 values take {numel * FLOAT32_BYTES}")
    return torch.from_file(str(path), shared=False, size=numel) if numel else torch.empty(0)


def map_flat(path: Path, layout: Layout) -> Tensor:
    """The file of a part with tensors of one dtype as one vector `[layout.numel]` of that dtype.

    Raises:
        LayoutError: The file has another size.
    """
    size = path.stat().st_size
    if size != layout.nbytes:
        raise LayoutError(f"{path.name} has {size} bytes, its part {layout.nbytes}")
    dtype = dtype_of(layout)
    return (
        torch.from_file(str(path), shared=False, size=layout.numel, dtype=dtype)
        if size
        else torch.empty(0, dtype=dtype)
    )


def dtype_of(layout: Layout) -> torch.dtype:
    """The dtype of all tensors of a layout; of none float32.

    Raises:
        LayoutError: They have several.
    """
    names = {tensor.dtype for tensor in layout.tensors} or {"float32"}
    if len(names) > 1:
        raise LayoutError(f"tensors of one dtype were expected, not of {', '.join(sorted(names))}")
    dtype: torch.dtype = getattr(torch, names.pop())
    return dtype


class MappedModel(Vector):
    """A model file: its parameters as one vector whatever their dtypes, and its buffers by name.

    Attributes:
        d: How many elements the parameters have together.
        buffers: The tensors of part `buffers`, by name.
        raw_buffers: The same as raw bytes, uint8.

    Raises:
        LayoutError: The file is not a model file of this layout.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        flat = state.map_file(path, layout)
        model, buffers = layout.part("model"), layout.part("buffers")
        self.d = model.numel
        self.raw_buffers = flat[model.nbytes :]
        self.buffers = state.views(flat[model.nbytes :], buffers)
        self._runs = [
            (start, stop, flat[offset : offset + (stop - start) * dtype.itemsize].view(dtype))
            for start, stop, offset, dtype in runs_of_one_dtype(model)
        ]

    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        """Parameters `columns` in layout order: float32 `[b]`, a read-only view where they are stored so."""
        pieces = [
            values[max(columns.start, start) - start : min(columns.stop, stop) - start].to(torch.float32)
            for start, stop, values in self._runs
            if start < columns.stop and columns.start < stop
        ]
        return placed(pieces[0] if len(pieces) == 1 else torch.cat([torch.empty(0), *pieces]), out)

    def as_stored(self, columns: slice, values: Tensor) -> list[Tensor]:
        """The inverse of `read`: float32 `[b]` in the file's dtypes, a piece for each dtype on the way."""
        first, end = columns.start, columns.stop
        return [
            values[max(first, start) - first : min(end, stop) - first].to(kept.dtype)
            for start, stop, kept in self._runs
            if start < end and first < stop
        ]


def runs_of_one_dtype(layout: Layout) -> list[tuple[int, int, int, torch.dtype]]:
    """Stretches of elements of one dtype, none empty: (first, end, byte offset, dtype), in layout order."""
    runs: list[tuple[int, int, int, torch.dtype]] = []
    element = offset = 0
    for tensor in layout.tensors:
        dtype: torch.dtype = getattr(torch, tensor.dtype)
        end = element + tensor.numel
        if runs and runs[-1][3] == dtype:
            runs[-1] = (runs[-1][0], end, runs[-1][2], dtype)
        elif tensor.numel:
            runs.append((element, end, offset, dtype))
        element, offset = end, offset + tensor.nbytes
    return runs
