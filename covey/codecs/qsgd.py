"""QSGD: levels at random, so that the expectation is the vector itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, JsonValue, model_validator
from torch import Tensor

from covey.codecs.blocked import BlockForm
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.integers import BlockSize
from covey.codecs.levels import Levels, Norm
from covey.layout import Layout
from covey.options import PluginOptions
from covey.vectors import Vector

MAX_LEVELS = 32767


class QSGDOptions(PluginOptions):
    """Options of `qsgd`."""

    bits: int = Field(4, ge=2, le=16)
    """Bits an element: s = 2^(bits - 1) - 1 levels on each side of zero."""
    levels: int | None = Field(None, ge=1, le=MAX_LEVELS)
    """s itself, instead of `bits`: an element then takes as many bits as 2 s + 1 codes need."""
    norm: Norm = "max"
    """A bucket's scale: its largest magnitude, or its l2 norm (the paper's theory; far less exact in practice)."""
    bucket: BlockSize = 512
    """Elements that share a scale: a power of two, 8 to 65536."""

    @model_validator(mode="after")
    def _one_of_bits_and_levels(self) -> QSGDOptions:
        if self.levels is not None and "bits" in self.model_fields_set:
            raise ValueError("give bits or levels, not both")
        return self


class QSGD(Codec):
    """Q(x) = m sign(x) z, where z is a neighbour of |x| / m among 0, 1/s, ..., 1, drawn so that E[Q(x)] = x.

    Vector: Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD", NeurIPS 2017, arXiv 1610.02132, section 3.1. For each
    bucket v, E||Q - v||^2 <= min(n / s^2, sqrt(n) / s) ||v||^2 with norm l2 and n elements: it is the sum of
    (norm / s)^2 p (1 - p), and p (1 - p) <= min(1 / 4, p). Deviations: codes of fixed length, not Elias codes; default
    norm is the maximum, as in the paper's experiments.
    """

    stochastic = True
    Options = QSGDOptions
    options: QSGDOptions

    def __init__(self, options: Mapping[str, JsonValue] | None = None) -> None:
        super().__init__(options)
        # With fewer levels, or an l2 norm as the scale, the noise is larger than the vector.
        self.contracts = self.options.norm == "max" and self.levels.levels >= 3

    @property
    def levels(self) -> Levels:
        """How a vector is cut into levels."""
        given = self.options
        if given.levels is None:
            return Levels.of_bits(given.bits, given.bucket, given.norm)
        return Levels(BlockForm((2 * given.levels).bit_length(), given.bucket), given.levels, given.norm)

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly: the bits of the codes, and 4 bytes a bucket."""
        return self.levels.form.size(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """See `Codec.encode`.

        Raises:
            TaskError: A value is not finite.
        """
        return self.levels.encode(source, context.seed)

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: Too many bytes.
            LayoutError: Too few; a negative or non-finite scale, a code without meaning, or padding that is not zero.
        """
        return self.levels.reader(buffer, d, "qsgd")
