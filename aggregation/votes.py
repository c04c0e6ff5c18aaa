"""Counting votes on packed signs: 64 coordinates at a time, never unpacked.

Bit j of byte i stands for coordinate 8 i + j, lowest bit first, and is set for +1. A count is kept as bit planes: word
k of plane p has bit p of the counts of coordinates 64 k .. 64 k + 63.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covey.aggregation.matrix import UpdateMatrix
from covey.vectors import PackedSigns, Vector, placed, spans

Words = NDArray[np.uint64]
Bits = NDArray[np.uint8]

WORD = 64
VOTE_COLUMNS = 1 << 18
"""Coordinates that are counted at a time: 32 kB of each row. A multiple of `WORD`."""


def unpacked(bits: Bits) -> Bits:
    """One byte, 0 or 1, for each bit: uint8 `[8 b]`."""
    return np.unpackbits(bits, bitorder="little")


def words_of(matrix: UpdateMatrix, columns: slice) -> Words:
    """The rows' signs as words, uint64 `[n, ceil(b / 64)]`, the bits past b zero; `start` is a multiple of 64."""
    signs = matrix.signs(columns).numpy()
    words = np.zeros((len(signs), -(-(columns.stop - columns.start) // WORD)), dtype="<u8")
    words.view(np.uint8)[:, : signs.shape[1]] = signs
    return words


def count(rows: Iterable[Words]) -> list[Words]:
    """How many of the rows have each bit set, as bit planes, the lowest first.

    Three words of one weight make one of that weight and one of twice the weight (a full adder), until there is one of
    each: about five operations a row and word, however many planes there are. Carry-save addition, as in Warren,
    "Hacker's Delight", second edition, section 5-1 (Harley-Seal; the first edition has a slower method).
    """
    waiting: list[list[Words]] = [[]]
    for row in rows:
        _add(waiting, row, 0)
    level = 0
    while level < len(waiting):
        if len(waiting[level]) == 2:
            first, second = waiting[level]
            waiting[level] = [first ^ second]
            _add(waiting, first & second, level + 1)
        level += 1
    return [plane for (plane,) in waiting]


def _add(waiting: list[list[Words]], word: Words, level: int) -> None:
    """Put a word of weight 2^level to those that wait there; three of them become one, and one of the next weight."""
    while True:
        if level == len(waiting):
            waiting.append([])
        waiting[level].append(word)
        if len(waiting[level]) < 3:
            return
        first, second, third = waiting[level]
        either = first ^ second
        waiting[level] = [either ^ third]
        word, level = (first & second) | (either & third), level + 1


def compare(planes: list[Words], threshold: int) -> tuple[Words, Words]:
    """Where a count is greater than a number, and where it is equal to it: words with those bits set."""
    greater, equal = np.zeros_like(planes[0]), ~np.zeros_like(planes[0])
    if threshold >> len(planes):
        return greater, greater
    for level in range(len(planes) - 1, -1, -1):
        if threshold >> level & 1:
            equal = equal & planes[level]
        else:
            greater = greater | (equal & planes[level])
            equal = equal & ~planes[level]
    return greater, equal


def totals(planes: list[Words], b: int) -> Tensor:
    """The counts of the first b bits themselves, float32 `[b]`."""
    counts = np.zeros(b, dtype=np.float32)
    for level, plane in enumerate(planes):
        counts += unpacked(plane.view(np.uint8))[:b] * np.float32(1 << level)
    return torch.from_numpy(counts)


def random_words(key: int, first: int, length: int) -> Words:
    """64 random bits for each of the words `first`, `first + 1`, ...: uint64 `[length]`, wherever one begins.

    SplitMix64 as a hash of (key, index of the word): Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
    Generators" (OOPSLA 2014), as Vigna's C code has it, with the multipliers of Stafford's Mix13; a test has the
    published first output of seed 0.
    """
    index = np.arange(first + 1, first + length + 1, dtype=np.uint64)
    z = np.uint64(key) + index * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = z ^ (z >> np.uint64(31))
    return mixed


def majority(words: Words, ties: Words) -> Words:
    """Where more than half of the rows have the bit set, and, where it is exactly half, the bit of `ties`.

    Args:
        words: uint64 `[n, w]`, n >= 1.
        ties: uint64 `[w]`.
    """
    n = len(words)
    greater, equal = compare(count(words), n // 2)
    return greater if n % 2 else greater | (equal & ties)


def agreeing(words: Words, result: Words, b: int) -> NDArray[np.int64]:
    """In how many of the first b bits each row is like the result: int64 `[n]`. The bits past b are zero in both."""
    different: NDArray[np.int64] = np.bitwise_count(words ^ result).sum(axis=1, dtype=np.int64)
    return b - different


def vote_blocks(d: int) -> list[slice]:
    """All coordinates, `VOTE_COLUMNS` at a time."""
    return spans(d, VOTE_COLUMNS)


class Ties:
    """Who wins where both sides have as many votes.

    Args:
        key: Of the random bits, 64 bits at most; None: +1 wins everywhere.
    """

    def __init__(self, key: int | None) -> None:
        self._key = key

    def words(self, columns: slice) -> Words:
        """Set where +1 wins, uint64 `[ceil(b / 64)]`; `columns.start` is a multiple of 64."""
        first, length = columns.start // WORD, -(-(columns.stop - columns.start) // WORD)
        if self._key is None:
            return np.full(length, 2**64 - 1, dtype=np.uint64)
        return random_words(self._key, first, length)


class Ballot:
    """One round's votes, counted block by block.

    Args:
        matrix: n rows, n >= 1, of which the signs are read.
        ties: Who wins where no side has more.
        credits: What each vote weighs, float32 `[n]`, not all zero; a negative one counts for the opposite of the
            vote. None: all the same.
        error: Added to the mean vote before its sign is taken, float32 `[d]`; None: nothing.
    """

    def __init__(self, matrix: UpdateMatrix, ties: Ties, credits: Tensor | None, error: Tensor | None) -> None:
        self.matrix, self.error = matrix, error
        self.weights = torch.ones(matrix.n) if credits is None else credits
        self._ties, self._equal = ties, credits is None

    def result(self, columns: slice, words: Words) -> Words:
        """Set where +1 wins: uint64 `[ceil(b / 64)]`, the bits past b zero.

        Args:
            columns: Step 1, `start` a multiple of 64.
            words: Of these columns, from `words_of`.
        """
        ties = self._ties.words(columns)
        if self._equal and self.error is None:
            return majority(words, ties)
        value = self.mean(words, columns.stop - columns.start)
        if self.error is not None:
            value = value + self.error[columns]
        won = unpacked(ties.view(np.uint8))[: len(value)].astype(bool)
        sums = value.numpy()
        return packed_words((sums > 0) | ((sums == 0) & won))

    def mean(self, words: Words, b: int) -> Tensor:
        """The (weighted) mean vote, float32 `[b]`, from -1 to 1: exactly zero where both sides weigh the same."""
        total, whole = float(self.weights.sum()), float(self.weights.abs().sum())
        if self._equal:
            return (totals(count(words), b) * 2 - total) / total
        positive = torch.zeros(b)
        for row, weight in zip(words, self.weights.tolist(), strict=True):
            positive.add_(torch.from_numpy(unpacked(row.view(np.uint8))[:b]), alpha=weight)
        return (positive * 2 - total) / whole


class ServerFeedback(Vector):
    """The error that goes into the next round's vote: see `covey.aggregation.majority_vote.MajorityVote`.

    Args:
        ballot: The round's, with its error.
        result: Its result, u.
        rho: As in the rule's options.
    """

    def __init__(self, ballot: Ballot, result: PackedSigns, rho: float | None) -> None:
        self.d = result.d
        self._ballot, self._result, self._rho = ballot, result, rho

    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        """Elements `columns` of the new error, float32 `[b]`, in new memory or in `out`."""
        return placed(self._error(columns), out)

    def _error(self, columns: slice) -> Tensor:
        matrix = self._ballot.matrix
        aligned = slice(columns.start // WORD * WORD, columns.stop)
        votes = self._ballot.mean(words_of(matrix, aligned), aligned.stop - aligned.start)
        lost = votes[columns.start - aligned.start :] - self._result.read(columns) / matrix.n
        if self._ballot.error is None:
            return lost
        old = self._ballot.error[columns]
        return lost + old if self._rho is None else (1 - self._rho) * lost + self._rho * old


def packed_words(positive: NDArray[np.bool_]) -> Words:
    """Packed bits as words, uint64 `[ceil(b / 64)]`, those past b zero."""
    words = np.zeros(-(-len(positive) // WORD), dtype="<u8")
    words.view(np.uint8)[: -(-len(positive) // 8)] = np.packbits(positive, bitorder="little")
    return words
