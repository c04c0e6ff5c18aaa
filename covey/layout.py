"""The ordered names, shapes and dtypes of a model's tensors, and the file form that follows from them.

A model file is a safetensors file whose data region is the flat buffer in layout order: part `model` first (trainable
parameters), then part `buffers`. The header is a deterministic function of the layout, so the size of a model file is
known before it is received. Where vectors travel with a model, they follow it in the same file: from the next
multiple of 64 bytes on, 64 bytes that begin with a whole number (their stamp, 8 bytes, little-endian; the others are
0), then float32 `[d]` each, d the number of the model's parameters.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

from covey.errors import LayoutError

DTYPE_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
SAFETENSORS_DTYPE = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
PARTS = ("model", "buffers")
MAX_TENSORS = 100_000
MAX_NAME = 512
_ALIGN = 64
_PIECE_BYTES = 1 << 20
FLOAT32_BYTES = 4


METADATA, ALIASES = "__metadata__", "aliases"
"""In a model file's header: the entry that is no tensor, and in it the further names (JSON: further name to name)."""


def safetensors_header(entries: Mapping[str, object]) -> bytes:
    """A safetensors header: its length in 8 bytes, and JSON that is padded with spaces to a multiple of 64 bytes."""
    text = _compact(entries).encode("ascii")
    text += b" " * (-(len(text) + 8) % _ALIGN)
    return len(text).to_bytes(8, "little") + text


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a layout: its state-dict name, dtype (torch's name without `torch.`), shape and part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    part: str = "model"

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.numel * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Layout:
    """The tensors of a model in exchange order: `model` before `buffers`, wider dtypes first, else as in the model.

    Attributes:
        tensors: Each once.
        aliases: Further names of some of them (tied weights), as (further name, name), sorted. They stand in a model's
            file, for those who load it; two layouts are equal whatever they are, and no hash of values covers them.
        frozen: SHA-256 (hex) of the model's tensors that are in no file, because nobody changes them; empty: there are
            none.
    """

    tensors: tuple[TensorSpec, ...]
    aliases: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    frozen: str = field(default="", compare=False)

    @classmethod
    def of(cls, tensors: list[TensorSpec], aliases: Mapping[str, str] | None = None) -> Layout:
        """Put tensors into exchange order (stable) and check them.

        Raises:
            LayoutError: Unknown dtype or part, negative size, a name twice, or too many tensors.
        """
        if len(tensors) > MAX_TENSORS:
            raise LayoutError(f"{len(tensors)} tensors, at most {MAX_TENSORS} are accepted")
        for t in tensors:
            if t.dtype not in DTYPE_BYTES or t.part not in PARTS:
                raise LayoutError(f"tensor {t.name[:80]!r}: dtype {t.dtype!r}, part {t.part!r} are not accepted")
            _check_name(t.name)
            if any(size < 0 for size in t.shape) or len(t.shape) > 16:
                raise LayoutError(f"tensor {t.name!r}: shape {t.shape} is not accepted")
        names = {t.name for t in tensors}
        if len(names) != len(tensors):
            raise LayoutError("two tensors have the same name")
        _check_aliases(aliases or {}, names)
        key = {part: i for i, part in enumerate(PARTS)}
        ordered = sorted(tensors, key=lambda t: (key[t.part], -DTYPE_BYTES[t.dtype]))
        return cls(tuple(ordered), tuple(sorted((aliases or {}).items())))

    @classmethod
    def from_json(cls, text: str | bytes) -> Layout:
        """Read a layout's text; the inverse of `to_json`, and of `canonical_bytes`.

        Raises:
            LayoutError: Not the text of a layout.
        """
        return _read(text)

    def canonical_bytes(self) -> bytes:
        """The layout as compact ASCII JSON: `[[name, dtype, shape, part], ...]`; what is hashed."""
        return _compact(self._rows()).encode("ascii")

    def to_json(self) -> str:
        """The text that is kept and sent: the canonical bytes; with `aliases` or `frozen` an object with `tensors`."""
        rows, behind = self._rows(), {"aliases": dict(self.aliases)}
        if self.frozen:
            return _compact({"tensors": rows, **behind, "frozen": self.frozen})
        return _compact({"tensors": rows, **behind} if self.aliases else rows)

    def _rows(self) -> list[list[object]]:
        return [[t.name, t.dtype, list(t.shape), t.part] for t in self.tensors]

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.canonical_bytes()).hexdigest()

    def model_sha256(self, path: Path) -> str:
        """SHA-256 of the canonical bytes and of the flat buffer in a model file of this layout, whatever is behind it.

        Raises:
            LayoutError: The file is too short.
            OSError: It cannot be read.
        """
        digest, left = hashlib.sha256(self.canonical_bytes()), self.nbytes
        with path.open("rb") as file:
            file.seek(len(self.header))
            while piece := file.read(min(left, _PIECE_BYTES)):
                digest.update(piece)
                left -= len(piece)
        if left:
            raise LayoutError(f"{path.name} is {left} bytes too short for a model file of its layout")
        return digest.hexdigest()

    def part(self, name: str) -> Layout:
        """The tensors of one part only."""
        return self._by_part.get(name) or Layout(())

    @cached_property
    def _by_part(self) -> dict[str, Layout]:
        return {name: Layout(tuple(t for t in self.tensors if t.part == name)) for name in PARTS}

    def matching(self, pattern: str) -> Layout:
        """The tensors whose names match a regular expression."""
        return Layout(tuple(t for t in self.tensors if re.search(pattern, t.name)))

    @cached_property
    def numel(self) -> int:
        """Number of elements of all tensors."""
        return sum(t.numel for t in self.tensors)

    @cached_property
    def nbytes(self) -> int:
        """Size of the flat buffer in bytes."""
        return sum(t.nbytes for t in self.tensors)

    @cached_property
    def header(self) -> bytes:
        """The safetensors header (8-byte length and JSON, padded with spaces to a multiple of 64 bytes)."""
        about = {"format": "pt", "layout": self.sha256}
        if self.aliases:
            about[ALIASES] = _compact(dict(self.aliases))
        entries: dict[str, object] = {METADATA: about}
        offset = 0
        for t in self.tensors:
            entries[t.name] = {
                "dtype": SAFETENSORS_DTYPE[t.dtype],
                "shape": list(t.shape),
                "data_offsets": [offset, offset + t.nbytes],
            }
            offset += t.nbytes
        return safetensors_header(entries)

    @property
    def file_bytes(self) -> int:
        """Size in bytes of a model file with this layout."""
        return len(self.header) + self.nbytes

    @property
    def stamp_at(self) -> int:
        """Where the stamp of vectors behind a model is in its file."""
        return self.file_bytes + -self.file_bytes % _ALIGN

    @property
    def behind_at(self) -> int:
        """Where vectors behind a model begin in its file."""
        return self.stamp_at + _ALIGN

    def behind_bytes(self, count: int) -> int:
        """By how much `count` float32 `[d]` behind a model make its file longer; d: the number of its parameters."""
        vector = FLOAT32_BYTES * self.part("model").numel
        return self.behind_at - self.file_bytes + count * vector if count else 0

    def behind_count(self, size_bytes: int) -> int:
        """How many whole vectors a file of this size may have behind its model."""
        vector = FLOAT32_BYTES * self.part("model").numel
        return max(0, size_bytes - self.behind_at) // vector if vector else 0


@lru_cache(maxsize=2)
def _read(text: str | bytes) -> Layout:
    """Parse a layout. One comes with every assignment of a run: it is read once, its header made once."""
    try:
        fields = json.loads(text)
        rows, tied = (fields["tensors"], fields["aliases"]) if isinstance(fields, dict) else (fields, {})
        tensors = [TensorSpec(str(n), str(d), tuple(int(x) for x in s), str(p)) for n, d, s, p in rows]
        aliases = {str(alias): str(name) for alias, name in tied.items()}
        frozen = str(fields.get("frozen", "")) if isinstance(fields, dict) else ""
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise LayoutError(f"not a layout: {error}") from error
    layout = Layout.of(tensors, aliases)
    if layout.tensors != tuple(tensors):
        raise LayoutError("the tensors are not in exchange order")
    return replace(layout, frozen=frozen) if frozen else layout


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _check_name(name: str) -> None:
    if not name or len(name) > MAX_NAME:
        raise LayoutError(
            f"tensor {name[:80]!r}: a name of {len(name)} characters is not accepted (1 to {MAX_NAME} are)"
        )
    if name == METADATA:
        raise LayoutError(f"tensor {name!r}: safetensors keeps this name for itself; choose another one")


def _check_aliases(aliases: Mapping[str, str], names: set[str]) -> None:
    if len(aliases) > MAX_TENSORS:
        raise LayoutError(f"{len(aliases)} further names of tensors, at most {MAX_TENSORS} are accepted")
    for alias, name in aliases.items():
        _check_name(alias)
        if alias in names or name not in names:
            raise LayoutError(f"{alias!r} is no further name of a tensor {name[:80]!r}")
