"""DQ-SGD: as many bits in each round as the gradient's norm asks for, within a budget for the whole run."""

from __future__ import annotations

import math
import statistics
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from covey.codecs.blocked import Scales, as_bytes
from covey.codecs.contract import Buffer, Codec, CodecContext
from covey.codecs.integers import BlockSize
from covey.codecs.levels import LevelReader, Levels, Norm
from covey.codecs.random_streams import SEGMENT
from covey.errors import LayoutError, LimitExceeded
from covey.layout import Layout
from covey.options import PluginOptions
from covey.vectors import Vector, spans

MIN_BITS, MAX_BITS = 2, 16
_HEADER = struct.Struct("<B3x")
"""The bits of a code; then three bytes of zero, so that the numbers behind lie at multiples of 4."""
_HALVINGS = 50
_LOG_RANGE = 200.0
"""The log2 of t lies within: norms are from 2^-149 to 2^128, and B is at most 16."""
_SLOW_START = 5
"""Rounds over which the norms' fall is spread at least: a first ratio is mostly noise, and would be raised to the power
of the rounds to come."""
Floats = NDArray[np.float64]


class DQSGDOptions(PluginOptions):
    """Options of `dq-sgd`."""

    bits: float = Field(4.0, ge=MIN_BITS, le=MAX_BITS)
    """The budget: bits an element and round, averaged over the run."""
    norm: Norm = "max"
    """A bucket's scale: its largest magnitude, or its l2 norm."""
    bucket: BlockSize = 512
    """Elements that share a scale: a power of two, 8 to 65536."""


@dataclass(frozen=True)
class Budget:
    """What is known after a round, the same on every node: what `DQSGD.summary` sends.

    Attributes:
        left: Bits an element that the rounds to come may take in all.
        norm: Median norm of the round's updates.
        first: That of the first round.
        round: The round.
    """

    left: int
    norm: float
    first: float
    round: int

    _form = struct.Struct("<IffI")

    def to_bytes(self) -> bytes:
        """Little-endian uint32, float32, float32, uint32."""
        return self._form.pack(self.left, self.norm, self.first, self.round)

    @classmethod
    def from_bytes(cls, data: bytes) -> Budget:
        """The inverse of `to_bytes`.

        Raises:
            LayoutError: Not what `to_bytes` makes.
        """
        if len(data) != cls._form.size:
            raise LayoutError(f"dq-sgd: a budget has {cls._form.size} bytes, not {len(data)}")
        budget = cls(*cls._form.unpack(data))
        if not all(math.isfinite(norm) and norm >= 0 for norm in (budget.norm, budget.first)) or budget.round < 1:
            raise LayoutError("dq-sgd: not a budget")
        return budget

    def bits(self, norm: float, rounds: int) -> int:
        """The bits of a code for an update of this norm in the next round of a run of so many.

        t is such that a median update in all rounds to come takes the bits that are left, its norm falling each
        round by the factor by which it fell so far, and not growing. Rounding up never eats the least bits of the
        rounds behind.
        """
        rest = rounds - self.round
        if rest < 1 or not norm or not self.norm:
            return MIN_BITS
        fall = min(self.norm / self.first, 1.0) if self.first else 1.0
        steps = np.arange(1, rest + 1) / max(self.round - 1, _SLOW_START)
        log_t = _log_t(math.log2(self.norm) + math.log2(fall) * steps, self.left)
        wanted = math.floor(float(real_bits(log_t, np.array([math.log2(norm)]))[0]) + 0.5)
        return max(MIN_BITS, min(wanted, self.left - MIN_BITS * (rest - 1), MAX_BITS))


def real_bits(log_t: float, log_norms: Floats) -> Floats:
    """B = log2(t ||g|| + 1) + 1 within 2 to 16, not rounded; t and the norms `[n]` by their log2."""
    bits: Floats = np.clip(np.logaddexp2(log_t + log_norms, 0.0) + 1, MIN_BITS, MAX_BITS)
    return bits


def _log_t(log_norms: Floats, left: int) -> float:
    """The log2 of the largest t with which updates of these norms `[n]` take at most `left` bits (by bisection)."""
    low, high = -_LOG_RANGE, _LOG_RANGE
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if float(real_bits(middle, log_norms).sum()) > left:
            high = middle
        else:
            low = middle
    return low


class DQSGD(Codec):
    """QSGD with B_n = log2(t ||g_n|| + 1) + 1 bits an element in round n, a whole number from 2 to 16.

    Vector: Yan, Huang, Lan, Song, "DQ-SGD", arXiv 2107.14575, in the form of the submission "DQSGD" (ICLR 2021), the
    rule for non-convex losses; quantizer from there, and E||Q - g||^2 of about
    d / (6 s^2) ||g||^2, which holds at many levels (with few, and heavy tails, it is 0.2 to 0.6 of that).

    Deviations: the paper's t needs the norms of all rounds beforehand; here it is set anew each round from what
    is left of the budget and how the norm fell so far (`Budget.bits`). The first round, and a run whose number of
    rounds is not known, take `bits`. ||g|| is the root mean square of the buckets' scales, which is the norm that
    the error follows. The budget is that of the median update: others may take more or less. Every message carries
    its own B.
    """

    fixed_size = False
    stochastic = True
    contracts = False
    summarises = True
    Options = DQSGDOptions
    options: DQSGDOptions

    def levels(self, bits: int) -> Levels:
        """How a vector is cut into levels with codes of `bits` bits."""
        return Levels.of_bits(bits, self.options.bucket, self.options.norm)

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """The most that is accepted: 4 bytes, 16 bits an element, and 4 bytes a bucket."""
        return self.message_bytes(d, MAX_BITS)

    def message_bytes(self, d: int, bits: int) -> int:
        """Exactly the size of a message with codes of `bits` bits."""
        return _HEADER.size + self.levels(bits).form.size(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """See `Codec.encode`; the source is read twice.

        Raises:
            TaskError: A value is not finite.
            LayoutError: The broadcast is not what `summary` makes.
        """
        bits = self._bits(source, context)
        yield memoryview(_HEADER.pack(bits))
        yield from self.levels(bits).encode(source, context.seed)

    def _bits(self, source: Vector, context: CodecContext) -> int:
        if not context.rounds:
            return math.floor(self.options.bits)
        if context.broadcast:
            return Budget.from_bytes(context.broadcast).bits(self._norm(source), context.rounds)
        return max(MIN_BITS, min(round(self.options.bits), self._whole(context) - MIN_BITS * (context.rounds - 1)))

    def _whole(self, context: CodecContext) -> int:
        """Bits an element of the whole run."""
        return math.floor(self.options.bits * context.rounds)

    def _norm(self, source: Vector) -> float:
        levels, scratch = self.levels(MIN_BITS), torch.empty(min(SEGMENT, source.d))
        parts = [np.empty(0, np.float32)]
        for columns in spans(source.d, SEGMENT):
            values = source.read(columns).detach().contiguous()
            parts.append(levels.scales(values, scratch[: len(values)]).numpy())
        return mean_norm(np.concatenate(parts))

    def summary(self, readers: Sequence[Vector], context: CodecContext) -> bytes:
        """The bits that are left and the median norm (`Budget`); the lower median, so that it is some update's own."""
        updates = [reader for reader in readers if isinstance(reader, DQReader)]
        if not updates or not context.rounds:
            return context.broadcast
        before = Budget.from_bytes(context.broadcast) if context.broadcast else None
        left = (before.left if before else self._whole(context)) - statistics.median_low(r.bits for r in updates)
        norm = statistics.median_low(mean_norm(reader.block_scales()) for reader in updates)
        return Budget(max(left, 0), norm, before.first if before else norm, context.round).to_bytes()

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: More bytes than 16 bits an element take.
            LayoutError: Not as many bytes as the message's own B takes; B is not from 2 to 16; a negative or
                non-finite scale, a code without meaning, or padding that is not zero.
        """
        data = as_bytes(buffer)
        if len(data) > self.encoded_bytes(d):
            raise LimitExceeded(f"{len(data)} bytes for {d} elements of dq-sgd, at most {self.encoded_bytes(d)}")
        if len(data) < _HEADER.size or data[1 : _HEADER.size].any():
            raise LayoutError(f"dq-sgd: a message begins with {_HEADER.size} bytes: B, and zeros")
        bits = int(data[0])
        if not MIN_BITS <= bits <= MAX_BITS:
            raise LayoutError(f"dq-sgd: {bits} bits; must be {MIN_BITS} to {MAX_BITS}")
        if len(data) != self.message_bytes(d, bits):
            raise LayoutError(
                f"dq-sgd: {len(data)} bytes; {d} elements of {bits} bits take {self.message_bytes(d, bits)}"
            )
        return DQReader(data[_HEADER.size :].data, d, self.levels(bits), "dq-sgd")


class DQReader(LevelReader):
    """Random access to a message; see `LevelReader`."""

    @property
    def bits(self) -> int:
        """B of this message."""
        return self.form.bits


def mean_norm(scales: Scales) -> float:
    """The root mean square of buckets' scales `[k]`, as a float32; 0 where there is none."""
    if not len(scales):
        return 0.0
    mean = float(np.sqrt(np.mean(np.square(scales, dtype=np.float64))))
    return float(np.float32(min(mean, float(np.finfo(np.float32).max))))
