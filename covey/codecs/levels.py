"""Even levels between minus and plus a block's scale: what int8, int4, QSGD and DQ-SGD have in common.

An element x of a block with scale m becomes the integer q of x / m * s, in -s..s, to the nearest or at random; its
code is q + s. It decodes to q / s * m, computed in float32 in this order, so that +-m come back exactly and a vector of
decoded values encodes to the same bytes again (to the nearest, scale `max`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from covey.codecs.blocked import BlockForm, BlockReader, block_maxima, divide_blocks
from covey.codecs.contract import Buffer
from covey.codecs.packing import Codes, code_dtype
from covey.codecs.random_streams import SEGMENT, uniforms
from covey.vectors import Vector, spans

Norm = Literal["max", "l2"]
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Levels:
    """How a vector is cut into levels.

    Attributes:
        form: Bits of a code, and elements of a block.
        levels: s, at most `2 ** (bits - 1) - 1`.
        norm: What a block's scale is: its largest magnitude, or its l2 norm.
    """

    form: BlockForm
    levels: int
    norm: Norm = "max"

    @classmethod
    def of_bits(cls, bits: int, block: int, norm: Norm = "max") -> Levels:
        """As many levels as codes of `bits` bits can tell apart evenly around zero."""
        return cls(BlockForm(bits, block), 2 ** (bits - 1) - 1, norm)

    def encode(self, source: Vector, seed: int | None) -> Iterator[memoryview]:
        """Encode a vector, one segment at a time.

        Args:
            source: The vector, read once.
            seed: Of the random rounding; None: to the nearest, ties to even.

        Raises:
            TaskError: A value is not finite.
        """
        scratch = torch.empty(min(SEGMENT, source.d))
        out = np.empty(self.form.segment_bytes(len(scratch)), np.uint8)
        codes = np.empty(len(scratch), code_dtype(self.form.bits))
        for columns in spans(source.d, SEGMENT):
            values = source.read(columns).detach().contiguous()
            work, noise = scratch[: len(values)], None if seed is None else uniforms(seed, columns)
            scales = self.scales(values, work)
            self._quantise(values, scales, noise, work)
            np.copyto(codes[: len(values)], work.numpy(), casting="unsafe")
            yield self.form.write(scales.numpy(), codes[: len(values)], out)

    def scales(self, values: Tensor, scratch: Tensor) -> Tensor:
        """The scale of each block of one segment, float32 `[k]`; `scratch` has the form of `values`.

        Raises:
            TaskError: A value is not finite.
        """
        maxima = block_maxima(values, self.form.block, scratch)
        if self.norm == "max":
            return maxima
        # Of x / max, so that no square overflows or vanishes: one is 1, and so no norm is below its maximum.
        divide_blocks(values, maxima, self.form.block, scratch)
        squares = torch.zeros(len(maxima) * self.form.block)
        torch.square(scratch, out=squares[: len(values)])
        lengths = squares.view(-1, self.form.block).sum(1).sqrt_()
        return maxima.mul_(lengths).clamp_(max=_LARGEST)

    def _quantise(self, values: Tensor, scales: Tensor, noise: Tensor | None, out: Tensor) -> None:
        """Codes as float32 `[n]` into `out`."""
        divide_blocks(values, scales, self.form.block, out)
        out.mul_(self.levels)
        if noise is None:
            out.round_()
        else:
            # The sum may round up to s + 1 where x = m.
            out.add_(noise).floor_().clamp_(max=self.levels)
        out.add_(self.levels)

    def reader(self, buffer: Buffer | Tensor, d: int, what: str) -> LevelReader:
        """Random access to an encoded vector; see `Codec.reader`. `what` is the codec's name, for messages."""
        return LevelReader(buffer, d, self, what)


class LevelReader(BlockReader):
    """Random access to even levels; see `BlockReader`."""

    def __init__(self, buffer: Buffer | Tensor, d: int, levels: Levels, what: str) -> None:
        self.what = what
        self.levels = levels
        super().__init__(buffer, d, levels.form)

    def codes_allowed(self, codes: Codes) -> bool:
        """Whether no code is above 2 s."""
        return len(codes) == 0 or int(codes.max()) <= 2 * self.levels.levels

    def values(self, codes: Codes, out: Tensor) -> None:
        """(code - s) / s."""
        np.copyto(out.numpy(), codes, casting="unsafe")
        out.sub_(self.levels.levels).div_(self.levels.levels)
