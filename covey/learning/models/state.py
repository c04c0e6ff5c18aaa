"""Models and their files: a flat buffer in layout order behind a safetensors header."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn

from covey.artifact import CHUNK_BYTES, WRITE_BACK_BYTES, Artifact, begin_write_back
from covey.errors import LayoutError
from covey.layout import Layout, TensorSpec
from covey.learning.models.entries import entries_of
from covey.storage.files.spool import disk_errors, write_at

STAMP_BYTES = 8
MAX_STAMP = (1 << 53) - 1


@dataclass(frozen=True)
class ModelFile:
    """A written model: its file's artifact, and the hash of its layout and values whatever the format.

    The hash is empty if the writer was not to name it.
    """

    artifact: Artifact
    model_sha256: str


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer by its state-dict name, detached, sharing memory with the model.

    Tied tensors come once, under their first name. The names are those of the user's own model, without torch's
    wrappers.

    Raises:
        LayoutError: An entry of the state_dict cannot be exchanged; the message names it.
    """
    return entries_of(model).tensors


def layout_of(model: nn.Module) -> Layout:
    """The layout of a model: float parameters (trainable or not) are part `model`, the rest part `buffers`.

    Raises:
        LayoutError: An entry of the state_dict cannot be exchanged; the message names it.
    """
    entries, specs = entries_of(model), []
    for name, tensor in entries.tensors.items():
        part = "model" if name in entries.parameters and tensor.is_floating_point() else "buffers"
        specs.append(TensorSpec(name, _name(tensor.dtype), tuple(tensor.shape), part))
    return Layout.of(specs, entries.aliases)


def map_file(path: Path, layout: Layout) -> Tensor:
    """Map a model file's flat buffer, uint8 [layout.nbytes]: a private mapping, read page by page when used.

    Raises:
        LayoutError: The file is not a model file of this layout.
    """
    _check_file(path, layout)
    whole = torch.from_file(str(path), shared=False, size=layout.file_bytes, dtype=torch.uint8)
    return whole[len(layout.header) :]


@dataclass(frozen=True)
class Behind:
    """What is behind a model in its file: its stamp, and vectors, float32 `[d]` each, d the number of parameters."""

    stamp: int = 0
    vectors: tuple[Tensor, ...] = ()


def map_behind(path: Path, layout: Layout) -> Behind:
    """What is behind a model, in a private mapping; of a plain model file, nothing.

    Raises:
        LayoutError: The file is not a model file of this layout, or its stamp is none.
    """
    size, d = _check_file(path, layout), layout.part("model").numel
    if size <= layout.behind_at:
        return Behind()
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    stamp = int.from_bytes(bytes(whole[layout.stamp_at : layout.stamp_at + STAMP_BYTES].tolist()), "little")
    if stamp > MAX_STAMP:
        raise LayoutError(f"{path.name} has the stamp {stamp}, more than {MAX_STAMP}")
    return Behind(stamp, tuple(whole[layout.behind_at :].view(torch.float32).view(-1, d)))


def views(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The tensors in a flat buffer, by name.

    Args:
        flat: uint8 [layout.nbytes].
        layout: Their order.

    Returns:
        Views where the dtype's alignment allows it, else copies.
    """
    tensors, offset = {}, 0
    for spec in layout.tensors:
        raw = flat[offset : offset + spec.nbytes]
        dtype = _dtype(spec.dtype)
        if raw.storage_offset() % dtype.itemsize:
            raw = raw.clone()
        tensors[spec.name] = raw.view(dtype).reshape(spec.shape)
        offset += spec.nbytes
    return tensors


def load_into(model: nn.Module, path: Path, layout: Layout | None = None) -> None:
    """Copy a model file's values into a model, tensor by tensor, through a mapping of the file.

    Args:
        model: On any device.
        path: A model file.
        layout: The model's, if it is at hand.

    Raises:
        LayoutError: The file is not a model file of this model's layout.
    """
    layout = layout or layout_of(model)
    stored = views(map_file(path, layout), layout)
    own = tensors_of(model)
    with torch.no_grad():
        for name, values in stored.items():
            own[name].copy_(values)


class ModelWriter:
    """Writes a model file from front to back, hashing in the pass that writes.

    Float32 vectors may follow the model (`write_behind`): the file is no safetensors file then, but every reader of a
    model file here reads its model. An existing file is overwritten in place (writing into allocated blocks is faster
    than into a fresh file) and cut if it was longer. Not safe for use by two threads at once. As a context manager it
    closes the descriptor in any case; `close` makes the file whole. Raises `StoreError` where the disk is full, or
    refuses.

    Args:
        path: The file; its directory exists.
        layout: What will be written.
        synced: Whether `close` waits for the disk.
        behind: How many vectors follow the model.
        named: Whether `close` says the model's hash, which is a second pass over all bytes.
    """

    def __init__(self, path: Path, layout: Layout, *, synced: bool = True, behind: int = 0, named: bool = True) -> None:
        self._layout, self._synced, self._named = layout, synced, named
        self._whole = layout.file_bytes + layout.behind_bytes(behind)
        self._model = hashlib.sha256(layout.canonical_bytes())
        self._chunk = hashlib.sha256()
        self._table = bytearray()
        self._size = self._begun = 0
        self._path = path
        with disk_errors(path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._append(memoryview(layout.header), of_model=False)

    def write(self, data: memoryview | bytes | bytearray) -> None:
        """Append bytes of the flat buffer; pieces may be of any size.

        Raises:
            LayoutError: More than the layout holds.
        """
        view = memoryview(data).cast("B")
        if self._size + len(view) > self._layout.file_bytes:
            raise LayoutError(f"more than the layout's {self._layout.nbytes} bytes were written")
        self._append(view, of_model=True)
        self._hurry()

    def write_stamp(self, stamp: int) -> None:
        """Begin with what is behind the model, which is whole. Raises LayoutError if it is not."""
        if self._size != self._layout.file_bytes:
            raise LayoutError("the model is not whole: nothing can be behind it")
        padding, rest = self._layout.stamp_at - self._size, self._layout.behind_at - self._layout.stamp_at - STAMP_BYTES
        self._append(memoryview(bytes(padding) + stamp.to_bytes(STAMP_BYTES, "little") + bytes(rest)), of_model=False)

    def write_behind(self, block: Tensor) -> None:
        """Append elements of the vectors behind the model, after the stamp: float32, one vector after the other.

        Raises:
            LayoutError: There is no stamp yet, or it is more than was announced.
        """
        for raw in _raw(block):
            if not self._layout.behind_at <= self._size <= self._whole - len(raw):
                raise LayoutError(f"{len(raw)} bytes behind the model do not fit: the file has {self._size} now")
            self._append(raw, of_model=False)
        self._hurry()

    def _hurry(self) -> None:
        if self._synced and self._size - self._begun >= WRITE_BACK_BYTES:
            begin_write_back(self._fd, self._begun, self._size)
            self._begun = self._size

    def write_tensor(self, tensor: Tensor) -> None:
        """Append a tensor's values, from any device."""
        for raw in _raw(tensor):
            self.write(raw)

    def close(self) -> ModelFile:
        """Make the file durable, if it is to be (its directory entry is the caller's), and say what is in it.

        Raises:
            LayoutError: Less was written than the layout holds.
        """
        if self._size != self._whole:
            raise LayoutError(f"{self._size} of {self._whole} bytes of the model file were written")
        if self._size % CHUNK_BYTES:
            self._end_chunk()
        with disk_errors(self._path):
            if os.fstat(self._fd).st_size > self._size:
                os.ftruncate(self._fd, self._size)
            if self._synced:
                os.fsync(self._fd)
        self.abandon()
        artifact = Artifact(hashlib.sha256(self._table).hexdigest(), self._size, bytes(self._table))
        return ModelFile(artifact, self._model.hexdigest() if self._named else "")

    def abandon(self) -> None:
        """Let go of the file as it is."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _append(self, view: memoryview, *, of_model: bool) -> None:
        while len(view):
            piece = view[: CHUNK_BYTES - self._size % CHUNK_BYTES]
            view = view[len(piece) :]
            self._chunk.update(piece)
            if of_model and self._named:
                self._model.update(piece)
            self._put(piece)
            if self._size % CHUNK_BYTES == 0:
                self._end_chunk()

    def _put(self, piece: memoryview) -> None:
        with disk_errors(self._path):
            write_at(self._fd, piece, self._size)
        self._size += len(piece)

    def _end_chunk(self) -> None:
        self._table += self._chunk.digest()
        self._chunk = hashlib.sha256()

    def __enter__(self) -> ModelWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()


def write_model(path: Path, layout: Layout, source: nn.Module | Mapping[str, Tensor]) -> ModelFile:
    """Write a model file, hashed in the same pass and synced.

    Args:
        path: Overwritten in place if it exists.
        layout: Which tensors, in which order.
        source: A model, or its tensors by name, on any device.

    Raises:
        LayoutError: A tensor is missing, or has another shape or dtype than the layout says.
    """
    tensors = tensors_of(source) if isinstance(source, nn.Module) else source
    with ModelWriter(path, layout) as writer:
        for spec in layout.tensors:
            tensor = tensors.get(spec.name)
            if tensor is None:
                raise LayoutError(f"tensor {spec.name!r} of the layout is missing")
            if tuple(tensor.shape) != spec.shape or _name(tensor.dtype) != spec.dtype:
                form = f"{_name(tensor.dtype)} {tuple(tensor.shape)}"
                raise LayoutError(f"tensor {spec.name!r} is {form}; the layout says {spec.dtype} {spec.shape}")
            writer.write_tensor(tensor)
        return writer.close()


def model_sha256(path: Path, layout: Layout) -> str:
    """SHA-256 of the canonical layout bytes and the flat buffer of a model file.

    Raises:
        LayoutError: The file is not a model file of this layout.
    """
    _check_file(path, layout)
    return layout.model_sha256(path)


def _check_file(path: Path, layout: Layout) -> int:
    """Whether it is a model file, with nothing or with whole vectors behind the model; its size."""
    header = layout.header
    with path.open("rb") as file:
        start, size = file.read(len(header)), os.fstat(file.fileno()).st_size
    if start != header:
        raise LayoutError(f"{path.name} is not a model file of layout {layout.sha256[:12]}: its header differs")
    count = layout.behind_count(size)
    if size != layout.file_bytes + layout.behind_bytes(count):
        raise LayoutError(f"{path.name} has {size} bytes; a model file of its layout has {layout.file_bytes}")
    return size


def _raw(tensor: Tensor) -> Iterator[memoryview]:
    flat = tensor.detach().reshape(-1)
    # From another device only a piece at a time: a second copy of the model would not be flat memory.
    step = max(1, len(flat)) if flat.device.type == "cpu" else 16 * CHUNK_BYTES
    for piece in torch.split(flat, step):
        yield piece.cpu().contiguous().view(torch.uint8).numpy().data


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype
