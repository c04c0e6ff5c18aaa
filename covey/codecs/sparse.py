"""`top-k` and `random-k`: k elements of a vector, and zeros for all others, with error feedback.

Stich, Cordonnier and Jaggi, "Sparsified SGD with memory" (NeurIPS 2018, arXiv 1809.07599), definition 2.1: both are
k-contractions, ||p - C(p)||^2 <= (1 - k/d) ||p||^2 (top-k always, random-k in the mean).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, JsonValue, model_validator
from torch import Tensor

from covey.codecs.blocked import require_finite_values
from covey.codecs.buffers import as_bytes, at_most_bytes
from covey.codecs.coded_pairs import SEGMENT, CodedPairs, ValueBits, counts_header, encoded_segment, most_bytes
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.threshold import Cut, Selector, cut
from covey.errors import LayoutError
from covey.layout import Layout
from covey.options import PluginOptions
from covey.validation import refusal
from covey.vectors import BLOCK_ELEMENTS, ComputedVector, Vector, spans

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.float32]
Keys = NDArray[np.int32]
Positions = NDArray[np.int64]

_PAIR = np.dtype([("index", "<i4"), ("value", "<f4")])
_VALUE = np.dtype("<f4")
_SEED = struct.Struct("<Q")
_MOST_ELEMENTS = 1 << 31
_DEFAULT_FRACTION = 0.01
_CELL = 1 << 15
"""Elements whose positions random-k's reader finds together."""


class SparseOptions(PluginOptions):
    """How many elements travel: `k`, or a `fraction` of all (rounded, at least one); 0.01 if neither is given."""

    k: int | None = Field(default=None, ge=1)
    """Elements that are sent; all of a vector that has fewer."""
    fraction: float | None = Field(default=None, gt=0, le=1)
    """Share of the elements that is sent."""

    @model_validator(mode="after")
    def _one(self) -> SparseOptions:
        if self.k is not None and self.fraction is not None:
            raise refusal("k", "give k or fraction, not both", self.k)
        return self

    def count(self, d: int) -> int:
        """How many of `d` elements are sent.

        Raises:
            LayoutError: `d` is 2^31 or more: an index would not fit.
        """
        if d >= _MOST_ELEMENTS:
            raise LayoutError(f"{d} elements are too many for an index of 31 bits")
        wanted = self.k or max(1, round((self.fraction or _DEFAULT_FRACTION) * d))
        return min(wanted, d)


class TopKOptions(SparseOptions):
    """`[exchange.options]` of `top-k`."""

    indices: Literal["int32", "elias-fano"] = "int32"
    """How the indices travel: 32 bits each, or about log2(d / k) + 2."""
    value_bits: ValueBits = 32
    """Of each value; 2 (a sign, and one of two magnitudes of its segment) needs `elias-fano`."""

    @model_validator(mode="after")
    def _form(self) -> TopKOptions:
        if self.value_bits != 32 and self.indices == "int32":
            raise refusal("value_bits", 'fewer than 32 need indices = "elias-fano"', self.value_bits)
        return self


class TopK(Codec):
    """The k elements of largest magnitude, ties to the lowest index; all others are 0.

    Format: k pairs of a little-endian int32 index and a float32 value, indices strictly increasing; or with `indices =
    "elias-fano"` as in `covey.codecs.coded_pairs`, whose size depends on where the elements lie. They are found by a
    threshold (`covey.codecs.threshold`) in three passes over the source, without a sort.
    """

    Options = TopKOptions
    feedback = True
    options: TopKOptions

    def __init__(self, options: Mapping[str, JsonValue] | None = None) -> None:
        super().__init__(options)
        self.fixed_size = self.options.indices == "int32"

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly 8 bytes for each of the k elements; with `elias-fano` at most what evenly spread ones take."""
        k = self.options.count(d)
        return _PAIR.itemsize * k if self.fixed_size else most_bytes(d, k, self.options.value_bits)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """The pairs of one block of the source at a time; reads the source three times, or with `elias-fano` four.

        Raises:
            TaskError: A value is not finite.
        """
        k = self.options.count(source.d)
        if not k:
            return
        cutoff = cut(lambda columns: _magnitudes(_read(source, columns)), source.d, k)
        if self.fixed_size:
            for columns, positions, values in _selected(source, cutoff, BLOCK_ELEMENTS):
                pairs = np.empty(len(positions), _PAIR)
                pairs["index"], pairs["value"] = positions + columns.start, values
                yield pairs.view(np.uint8).data
            return
        yield counts_header(np.array([len(positions) for _, positions, _ in _selected(source, cutoff, SEGMENT)]))
        for columns, positions, values in _selected(source, cutoff, SEGMENT):
            yield from encoded_segment(positions, values, columns.stop - columns.start, self.options.value_bits)

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: More than `encoded_bytes(d)`.
            LayoutError: Fewer; indices that do not increase or are not in `0..d`; a value that is not finite.
        """
        if not self.fixed_size:
            coded = at_most_bytes(buffer, self.encoded_bytes(d), f"{self.options.count(d)} of {d} elements")
            return CodedPairs(coded.numpy(), d, self.options.count(d), self.options.value_bits)
        data = as_bytes(buffer, self.encoded_bytes(d), f"{self.options.count(d)} of {d} elements")
        return _Pairs(data.numpy(), d)


class RandomKOptions(SparseOptions):
    """`[exchange.options]` of `random-k`."""

    unbiased: bool = False
    """Scale what is sent by d/k, so that its mean is the vector; then nothing is kept of what was not sent."""


class RandomK(Codec):
    """k elements at random, each set of k as likely as any other; all others are 0.

    Format: a seed as little-endian uint64, then k values as little-endian float32, in the order of their positions.
    These follow from the seed: element i has the key h((i + low) (high | 1)) >> 1 in uint32 arithmetic, with low and
    high the halves of the seed and h the finalizer of MurmurHash3 (x ^= x >> 16, x *= 0x85ebca6b, x ^= x >> 13,
    x *= 0xc2b2ae35, x ^= x >> 16). The elements with the k largest keys are sent, ties to the lowest index.

    With error feedback (the default) values are sent as they are; with `unbiased` they are scaled by d/k, which is no
    contraction: nothing is fed back, and whole models go down.
    """

    Options = RandomKOptions
    stochastic = True
    feedback = True
    options: RandomKOptions

    def __init__(self, options: Mapping[str, JsonValue] | None = None) -> None:
        super().__init__(options)
        # The contract asks the class; here the answer depends on an option.
        self.feedback = self.contracts = not self.options.unbiased

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly 8 bytes, and 4 for each of the k elements."""
        return _SEED.size + _VALUE.itemsize * self.options.count(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """The seed, then the values; reads the source once.

        Raises:
            TaskError: A value is not finite.
        """
        seed, k = context.seed % 2**64, self.options.count(source.d)
        yield memoryview(_SEED.pack(seed))
        if not k:
            return
        scale = np.float32(source.d / k if self.options.unbiased else 1)
        selector = Selector(cut(lambda columns: _keys(seed, columns), source.d, k))
        for columns in spans(source.d, BLOCK_ELEMENTS):
            values = _read(source, columns)[selector.next(_keys(seed, columns))]
            yield _scaled(values, scale).astype(_VALUE, copy=False).view(np.uint8).data

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: More than `encoded_bytes(d)`.
            LayoutError: Fewer; a value that is not finite.
        """
        data = as_bytes(buffer, self.encoded_bytes(d), f"{self.options.count(d)} of {d} elements").numpy()
        (seed,) = _SEED.unpack(data[: _SEED.size].tobytes())
        return _Seeded(data[_SEED.size :].view(_VALUE), d, seed)


class _Pairs(ComputedVector):
    def __init__(self, data: Bytes, d: int) -> None:
        super().__init__(d)
        pairs = data.view(_PAIR)
        self._indices, self._values = pairs["index"], pairs["value"]
        before = -1
        for part in spans(len(pairs), BLOCK_ELEMENTS):
            indices = self._indices[part]
            if indices[0] <= before or np.any(indices[1:] <= indices[:-1]):
                raise LayoutError("the indices do not increase strictly from 0 on")
            before = int(indices[-1])
            _require_finite(self._values[part])
        if before >= d:
            raise LayoutError(f"index {before} is not one of {d} elements")

    def decode(self, columns: slice, out: Tensor) -> None:
        out.zero_()
        first = bisect_left(self._indices, columns.start)
        last = bisect_left(self._indices, columns.stop, first)
        out.numpy()[self._indices[first:last] - columns.start] = self._values[first:last]


class _Seeded(ComputedVector):
    def __init__(self, values: Numbers, d: int, seed: int) -> None:
        super().__init__(d)
        self._values, self._seed = values, seed
        for part in spans(len(values), BLOCK_ELEMENTS):
            _require_finite(values[part])
        # For each cell, how many elements before it are sent, and how many ties are left.
        self._starts: list[tuple[int, Cut]] = []
        left, rank = cut(lambda columns: _keys(seed, columns), d, len(values)) if d else Cut(0, 0), 0
        for cell in range(-(-d // _CELL)):
            self._starts.append((rank, left))
            positions, left = self._selected(cell)
            rank += len(positions)

    def decode(self, columns: slice, out: Tensor) -> None:
        out.zero_()
        target = out.numpy()
        for cell in range(columns.start // _CELL, -(-columns.stop // _CELL)):
            positions = self._selected(cell)[0] + (cell * _CELL - columns.start)
            first, last = np.searchsorted(positions, [0, len(target)])
            rank = self._starts[cell][0]
            target[positions[first:last]] = self._values[rank + first : rank + last]

    def _selected(self, cell: int) -> tuple[Positions, Cut]:
        """Positions inside a cell, and the cut for the next one."""
        selector = Selector(self._starts[cell][1])
        keys = _keys(self._seed, slice(cell * _CELL, min((cell + 1) * _CELL, self.d)))
        return selector.next(keys), selector.left


def _selected(source: Vector, cutoff: Cut, width: int) -> Iterator[tuple[slice, Positions, Numbers]]:
    """The selected elements, so many columns at a time: the columns, positions in them, values."""
    selector = Selector(cutoff)
    for columns in spans(source.d, width):
        block = _read(source, columns)
        positions = selector.next(_magnitudes(block))
        yield columns, positions, block[positions]


def _read(source: Vector, columns: slice) -> Numbers:
    return np.ascontiguousarray(require_finite_values(source.read(columns)).numpy())


def _scaled(values: Numbers, scale: np.float32) -> Numbers:
    """The product, held at the largest finite number where it would be infinite."""
    largest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        scaled: Numbers = np.clip(values * scale, -largest, largest)
    return scaled


def _magnitudes(block: Numbers) -> Keys:
    """A float without its sign, as an integer: ordered as the magnitudes are."""
    keys: Keys = block.view(np.int32) & 0x7FFFFFFF
    return keys


def _keys(seed: int, columns: slice) -> Keys:
    # In int32 of torch, which wraps around as uint32 does, and multiplies many elements with one instruction.
    keys = torch.arange(columns.start, columns.stop, dtype=torch.int32)
    keys.add_(_signed(seed % 2**32)).mul_(_signed(seed >> 32 | 1))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        keys.bitwise_xor_(_shifted(keys, shift)).mul_(_signed(factor))
    return _shifted(keys, 1).numpy()


def _shifted(keys: Tensor, bits: int) -> Tensor:
    """To the right, with zeros coming in as for uint32."""
    return (keys >> bits).bitwise_and_((1 << 32 - bits) - 1)


def _signed(number: int) -> int:
    """The int32 with the bits of a uint32."""
    return number - 2**32 if number >= 2**31 else number


def _require_finite(values: Numbers) -> None:
    if not np.isfinite(values).all():
        raise LayoutError("a value is not finite")
