"""Signed integers of 8 and 4 bits with a scale for each block of elements (absmax), rounded to the nearest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import AfterValidator
from torch import Tensor

from covey.codecs.blocked import power_of_two
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.levels import Levels
from covey.layout import Layout
from covey.options import PluginOptions
from covey.vectors import Vector

BlockSize = Annotated[int, AfterValidator(power_of_two)]


class Int8Options(PluginOptions):
    """Options of `int8`."""

    block: BlockSize = 256
    """Elements that share a scale: a power of two, 8 to 65536."""


class Int4Options(Int8Options):
    """Options of `int4`."""

    block: BlockSize = 64
    """Elements that share a scale: a power of two, 8 to 65536."""


class Int8(Codec):
    """8 bits an element and a float32 scale m = max|x| for each `block` elements: x -> round(127 x / m).

    The error of an element is at most m / 254, apart from float32 rounding. Biased: a value is always rounded the
    same way; `qsgd` is the unbiased one.
    """

    Options = Int8Options
    options: Int8Options
    bits: ClassVar[int] = 8

    @property
    def levels(self) -> Levels:
        """How a vector is cut into levels."""
        return Levels.of_bits(self.bits, self.options.block)

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly: `bits` an element, and 4 bytes a block."""
        return self.levels.form.size(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """See `Codec.encode`; nothing of the context is used.

        Raises:
            TaskError: A value is not finite.
        """
        return self.levels.encode(source, None)

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: Too many bytes.
            LayoutError: Too few; a negative or non-finite scale, a code without meaning, or padding that is not zero.
        """
        return self.levels.reader(buffer, d, f"int{self.bits}")


class Int4(Int8):
    """4 bits an element and a float32 scale m = max|x| for each `block` elements: x -> round(7 x / m).

    The error of an element is at most m / 14, apart from float32 rounding.
    """

    Options = Int4Options
    bits = 4
