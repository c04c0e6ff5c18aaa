"""`dp-sign`: the sign of a sum of clipped gradients with noise, one bit an element, differentially private.

Jin, Huang, He, Dai and Wu, "Stochastic-Sign SGD for federated learning with theoretical guarantees" (arXiv 2002.10940);
the formulas from the authors' code. Element g_i becomes +1 with probability Phi(g_i / sigma), else -1: exactly the sign
of g_i plus Gaussian noise N(0, sigma^2). With delta = 0 it is the sign of g_i plus Laplace noise of scale lambda.

The privacy rests on what is encoded: the vector must be a SUM of per-example gradients, each clipped to norm C over all
tensors at once (`covey.learning.training.per_example`). Then what one example contributes moves it by at most C, and
the noisy vector, and with it its signs, is (epsilon, delta)-differentially private for each message. What all messages
of a run spend together is in `covey.learning.privacy`, which also says what exactly is hidden.

Format: the packed signs (`covey.vectors.signs`) and nothing else: no scale, no number of examples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pydantic import Field, model_validator
from torch import Tensor

from covey.codecs.blocked import require_finite_values
from covey.codecs.buffers import as_bytes
from covey.codecs.contract import Buffer, Codec, CodecContext, MessagePrivacy, PerExample
from covey.codecs.sign import Sign
from covey.layout import Layout
from covey.options import PluginOptions
from covey.validation import refusal
from covey.vectors import BLOCK_ELEMENTS, Vector, spans
from covey.vectors.signs import PackedSigns, packed, packed_bytes

Norm = Literal["l1", "l2"]


class DpSignOptions(PluginOptions):
    """`[exchange.options]` of `dp-sign`: the privacy of one message."""

    epsilon: float = Field(gt=0, le=1000)
    """Of each message; a run of many rounds spends more (`covey.learning.privacy`)."""
    delta: float = Field(ge=0, lt=1)
    """Of each message; 0 with `mechanism = "laplace"` only."""
    clip: float = Field(gt=0)
    """C: the norm that no example's gradient exceeds, over all tensors at once; l2, or l1 with "laplace"."""
    mechanism: Literal["gaussian", "analytic-gaussian", "laplace"] = "gaussian"
    """`gaussian` (epsilon < 1), `analytic-gaussian` (any epsilon, and less noise), `laplace` (delta = 0)."""

    @model_validator(mode="after")
    def _possible(self) -> DpSignOptions:
        if self.mechanism == "laplace" and self.delta > 0:
            raise refusal("delta", 'Laplace noise gives delta = 0; write 0, or choose "analytic-gaussian"', self.delta)
        if self.mechanism != "laplace" and self.delta == 0:
            raise refusal("delta", 'Gaussian noise needs delta > 0; choose mechanism = "laplace" for 0', self.delta)
        if self.mechanism == "gaussian" and self.epsilon >= 1:
            text = 'the classical Gaussian mechanism holds below 1; choose mechanism = "analytic-gaussian"'
            raise refusal("epsilon", text, self.epsilon)
        return self

    @property
    def norm(self) -> Norm:
        """The norm in which each example's gradient is clipped."""
        return "l1" if self.mechanism == "laplace" else "l2"

    @property
    def noise(self) -> float:
        """Standard deviation of the Gaussian noise (sigma), or scale of the Laplace noise (lambda = C / epsilon)."""
        if self.mechanism == "laplace":
            return self.clip / self.epsilon
        if self.mechanism == "gaussian":
            return math.sqrt(2 * math.log(1.25 / self.delta)) * self.clip / self.epsilon
        return self.clip * analytic_gaussian(self.epsilon, self.delta)

    @property
    def privacy(self) -> MessagePrivacy:
        """What one message spends."""
        mechanism: Literal["laplace", "gaussian"] = "laplace" if self.mechanism == "laplace" else "gaussian"
        return MessagePrivacy(self.epsilon, self.delta, mechanism, self.noise / self.clip)


class DpSign(Codec):
    """The sign of the vector plus noise: P(+1) = Phi(g / sigma), or 1/2 + sign(g) (1 - e^(-|g| / lambda)) / 2.

    Source: Jin, Huang, He, Dai and Wu, "Stochastic-Sign SGD for federated learning with theoretical guarantees" (arXiv
    2002.10940). `gaussian`: sigma = sqrt(2 ln(1.25 / delta)) C / epsilon (Dwork and Roth, theorem A.1, for epsilon <
    1), as the authors have it; `analytic-gaussian`: the least sigma there is (Balle and Wang, ICML 2018, theorem
    8). One norm goes over all tensors, as in the authors' main loop.

    The random numbers are AES-256 in counter mode, keyed with the SHA-256 of the context's seed, and have 32 bits;
    where these do not decide, as many more are drawn as it takes. What is compared with them is the probability of
    the less likely sign, which float64 holds to 16 digits however small it is: so with Laplace noise no sign is
    ever impossible, and the ratio of any two probabilities is right, as pure epsilon-privacy needs it. Decodes to
    +1 and -1.
    """

    Options = DpSignOptions
    signs = True
    contracts = False
    stochastic = True
    private = True
    options: DpSignOptions

    @property
    def per_example(self) -> PerExample:
        """Clipped to C, in the norm that the noise is for."""
        return PerExample(self.options.clip, self.options.norm)

    @property
    def privacy(self) -> MessagePrivacy:
        """That of the options."""
        return self.options.privacy

    def encoded_bytes(self, d: int, layout: Layout | None = None) -> int:
        """Exactly `ceil(d / 8)`."""
        return packed_bytes(d)

    def encode(self, source: Vector, context: CodecContext) -> Iterator[memoryview]:
        """The signs; reads the source once.

        Raises:
            TaskError: A value is not finite.
        """
        first, further = _secret_stream(context.seed), _secret_stream(context.seed, "/further")
        noise, laplace = self.options.noise, self.options.mechanism == "laplace"
        for columns in spans(source.d, BLOCK_ELEMENTS):
            ratio = require_finite_values(source.read(columns)).to(torch.float64) / noise
            other = laplace_tail(ratio) if laplace else torch.special.ndtr(-ratio.abs())
            positive, drawn = ratio > 0, next(first)[: len(ratio)]
            # As when one number is compared with P(+1): those at the upper end give -1.
            drawn = torch.where(positive, _LARGEST - drawn, drawn)
            yield packed(below(drawn, other, lambda: next(further)) ^ positive)

    def downlink(self) -> Codec:
        """`sign`: a vote has one bit an element."""
        return Sign()

    def reader(self, buffer: Buffer | Tensor, d: int, layout: Layout | None = None) -> Vector:
        """See `Codec.reader`.

        Raises:
            LimitExceeded: More than `ceil(d / 8)` bytes.
            LayoutError: Fewer, or a set bit behind the last element.
        """
        return PackedSigns(as_bytes(buffer, packed_bytes(d), f"the private signs of {d} elements"), d)


def analytic_gaussian(epsilon: float, delta: float) -> float:
    """The least sigma for sensitivity 1: the root of Balle and Wang (ICML 2018), theorem 8, from above.

    Phi(1 / (2 sigma) - epsilon sigma) - e^epsilon Phi(-1 / (2 sigma) - epsilon sigma) <= delta.
    """
    high = 1.0
    while gaussian_delta(epsilon, high) > delta:
        high *= 2
    low = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if gaussian_delta(epsilon, middle) > delta else (low, middle)
    return high


def gaussian_delta(epsilon: float, sigma: float) -> float:
    """The least delta of Gaussian noise `sigma` on sensitivity 1: the left side above."""
    ends = torch.tensor([0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma], dtype=torch.float64)
    first, second = torch.special.log_ndtr(ends).tolist()
    return math.exp(first) - math.exp(min(epsilon + second, 0.0))


_DIGIT = 2.0**32
_LARGEST = _DIGIT - 1
_FARTHEST = 700.0
"""A ratio is cut to it, which takes no privacy: beyond about 745, e^-ratio is 0 in float64."""


def laplace_tail(ratio: Tensor) -> Tensor:
    """The probability of the less likely sign with Laplace noise, float64 `[n]`."""
    return 0.5 * torch.exp(-ratio.abs().clamp(max=_FARTHEST))


def below(digits: Tensor, probabilities: Tensor, further: Callable[[], Tensor]) -> Tensor:
    """Whether numbers drawn evenly from 0 to 1 are below probabilities, exactly: bool `[n]`.

    Args:
        digits: The first 32 bits of each number: whole float64 `[n]` below 2^32.
        probabilities: float64 `[n]`, from 0 to 1/2.
        further: Gives more of 32 bits, float64 `[m]` with m >= n, where these do not decide.
    """
    scaled = probabilities * _DIGIT  # exact, as it is a power of two
    whole = scaled.floor()
    decided, open_ = digits < whole, ((digits == whole) & (scaled > whole)).nonzero().flatten()
    if len(open_):
        decided[open_] = below(further()[: len(open_)], (scaled - whole)[open_], further)
    return decided


def _secret_stream(seed: int, purpose: str = "") -> Iterator[Tensor]:
    """Numbers of 32 bits, drawn evenly: whole float64 `[BLOCK_ELEMENTS]` at a time."""
    key = hashlib.sha256(f"dp-sign/{seed}{purpose}".encode()).digest()
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(4 * BLOCK_ELEMENTS)
    while True:
        yield torch.from_numpy(np.frombuffer(cipher.update(zeros), "<u4").astype(np.float64))
