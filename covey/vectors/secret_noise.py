"""Random numbers that nobody can predict who has not the key: AES-256 in counter mode, readable from any element on."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor
from typing_extensions import override

from covey.vectors.contract import ComputedVector

KEY_BYTES = 32
"""Of a key, from `secrets.token_bytes`."""
_WORD_BYTES, _BLOCK_BYTES = 8, 16
_MAGNITUDE = (1 << 63) - 1


def subkey(key: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose."""
    return hashlib.sha256(b"covey/secret-noise/" + key + purpose.encode()).digest()


def words(key: bytes, start: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Words of 64 bits, drawn evenly: uint64 `[count]`, from word `start` of the key's stream on.

    Args:
        key: 32 bytes.
        start: Which word comes first, from 0.
        count: How many.
    """
    first_block, skipped = divmod(start * _WORD_BYTES, _BLOCK_BYTES)
    cipher = Cipher(algorithms.AES(key), modes.CTR(first_block.to_bytes(_BLOCK_BYTES, "big"))).encryptor()
    return np.frombuffer(cipher.update(bytes(skipped + count * _WORD_BYTES))[skipped:], "<u8")


def normal(key: bytes, start: int, count: int) -> Tensor:
    """Independent N(0, 1): float64 `[count]`, from element `start` on. Each has 63 bits and reaches to 9 deviations.

    By the inverse of the distribution function at one word, whose highest bit is the sign: no rejection, so element i
    is the same however the stream is cut.
    """
    drawn = words(key, start, count)
    lower = torch.from_numpy(((drawn & _MAGNITUDE).astype(np.float64) + 0.5) * 2.0**-64)
    is_positive = torch.from_numpy((drawn >> 63).astype(np.bool_))
    tail = torch.special.ndtri(lower)
    return torch.where(is_positive, -tail, tail)


def laplace(key: bytes, start: int, count: int) -> Tensor:
    """Independent Laplace noise of scale 1: float64 `[count]`, from element `start` on. It reaches to 44 scales.

    By the inverse of the distribution function at one word, whose highest bit is the sign.
    """
    drawn = words(key, start, count)
    tail = -torch.log(torch.from_numpy(((drawn & _MAGNITUDE).astype(np.float64) + 0.5) * 2.0**-63))
    is_positive = torch.from_numpy((drawn >> 63).astype(np.bool_))
    return torch.where(is_positive, tail, -tail)


def chosen(key: bytes, count: int, probability: float) -> Tensor:
    """Each of `count` places by itself with this probability (Poisson sampling): int64, ascending."""
    drawn = words(key, 0, count).astype(np.float64) * 2.0**-64
    return torch.from_numpy(np.flatnonzero(drawn < probability) if probability < 1 else np.arange(count))


class NormalVector(ComputedVector):
    """Noise N(0, 1) as a vector, the same whenever it is read.

    Args:
        key: 32 bytes.
        d: Number of elements.
    """

    def __init__(self, key: bytes, d: int) -> None:
        super().__init__(d)
        self._key = key

    @override
    def decode(self, columns: slice, out: Tensor) -> None:
        out.copy_(normal(self._key, columns.start, columns.stop - columns.start))
