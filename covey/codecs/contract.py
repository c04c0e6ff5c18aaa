"""What a codec is: how a vector of float32 becomes bytes, and how any block of it is had back from them.

A codec keeps no state between vectors. What error feedback needs (the residual) follows from `encode` and a
reader over its output, so it stands around a codec, never inside it.
"""

from __future__ import annotations

import mmap
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from covey.layout import Layout
from covey.plugins import Kind, Pluggable
from covey.vectors import Vector

Buffer = bytes | bytearray | memoryview | mmap.mmap


@dataclass(frozen=True)
class CodecContext:
    """What a codec may know of the vector that it encodes.

    Attributes:
        seed: Seed of this one encoding's random numbers, already derived from run seed, round and roster
            index; of a codec that is `private`, a secret that only this node has.
        round: The round, from 1.
        rounds: How many rounds the run has, for codecs with a budget; 0 where that is not known.
        layout: Of the part that is encoded, for codecs that scale each tensor apart; None: one tensor.
        broadcast: What the codec's `summary` made of the last round's updates, the same bytes on every node
            and on the coordinator; empty in the first round.
    """

    seed: int
    round: int
    rounds: int = 0
    layout: Layout | None = None
    broadcast: bytes = b""


@dataclass(frozen=True)
class PerExample:
    """What a codec encodes in place of a gradient: the sum of the examples' gradients, each clipped by itself.

    Attributes:
        clip: The norm that no example's gradient exceeds, over all tensors at once.
        norm: Which norm.
    """

    clip: float
    norm: Literal["l1", "l2"]


@dataclass(frozen=True)
class MessagePrivacy:
    """The differential privacy of one message of a private codec.

    Attributes:
        epsilon: Of one message.
        delta: Of one message; 0 with Laplace noise only.
        mechanism: Which noise.
        noise: Its standard deviation (Gaussian) or scale (Laplace), by what one example contributes at most.
    """

    epsilon: float
    delta: float
    mechanism: Literal["gaussian", "laplace"]
    noise: float


class Codec(Pluggable):
    """Turns a vector of `d` float32 into bytes. A subclass's docstring says what is lost, and the paper.

    Class attributes:
        Options: The model of the codec's options (`[exchange.options]`).
        lossless: Whether decoding gives back exactly what was encoded.
        fixed_size: Whether `encoded_bytes` is exact rather than an upper limit.
        signs: Whether only signs travel: then the rule must be one that votes.
        stochastic: Whether its bytes depend on `CodecContext.seed`.
        private: Whether its randomness protects the data, and so must come from a secret of the node.
        contracts: Whether what is lost of a vector is, as a rule, less than the vector: only then can what was lost
            be added to the next vector without end.
        feedback: Whether the sender keeps what was lost and adds it to its next vector (error feedback), if
            the run does not say otherwise.
        summarises: Whether it has a `summary` of a round's updates, which every node gets.
    """

    declares: ClassVar[Mapping[str, str]] = {"summary": "summarises", "per_example": "private", "privacy": "private"}

    lossless: ClassVar[bool] = False
    fixed_size: bool = True
    signs: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    private: ClassVar[bool] = False
    feedback: bool = False
    contracts: bool = True
    summarises: ClassVar[bool] = False

    @property
    def per_example(self) -> PerExample | None:
        """How the gradients of single examples are clipped before they are summed; None: it takes any vector."""
        return None

    @property
    def privacy(self) -> MessagePrivacy | None:
        """What one message spends, where that can be accounted for."""
        return None

    @abstractmethod
    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Size in bytes of `d` encoded elements: exact where `fixed_size`, else the most that is accepted.

        Args:
            d: Number of elements.
            layout: As in `CodecContext.layout`.
        """

    @abstractmethod
    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """Encode a vector.

        Args:
            source: The vector; it may be read more than once (a maximum first, then the elements).
            context: The source of randomness, and what else is known.

        Yields:
            The bytes in order, each piece valid until the next is asked for. The same source and context give
            the same bytes, whatever the width in which the source is read.
        """

    def summary(self, readers: Sequence[Vector], context: CodecContext) -> bytes:
        """What every node is to know of this round's updates when it encodes the next one (small: it is sent along).

        Args:
            readers: The admitted updates in roster order, from peers of whom some may lie.
            context: Of the round that was aggregated (its seed is of no meaning here).
        """
        return b""

    def downlink(self) -> Codec:
        """The codec in which a committed change of the model travels down in a run with this codec."""
        return self

    @abstractmethod
    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """Random access to an encoded vector that an untrusted peer has sent.

        Args:
            buffer: Its bytes (or a tensor over them), read-only or not; kept alive by the vector, never
                copied or written.
            d: Number of elements it must have.
            layout: As in `CodecContext.layout`: the same as it was encoded with.

        Raises:
            LimitExceeded: It has more bytes than `d` elements can take.
            LayoutError: It has fewer, or is not the codec's form.
        """


CODECS = Kind("codec", "covey.codecs", Codec, "exchange", "codec")
