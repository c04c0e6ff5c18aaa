"""What every codec must keep, as tests that the author of one inherits.

    class TestMine(CodecConformance):
        def make(self) -> Codec:
            return Mine({"bits": 4})

Class attributes say which property the codec does, or does not, claim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from covey.codecs.contract import Codec, CodecContext
from covey.errors import CoveyError, SpecError, TaskError
from covey.layout import Layout, TensorSpec
from covey.vectors import TensorVector, Vector, spans

SIZES = (0, 1, 7, 1000, (1 << 16) + 9)
"""Numbers of elements: none, fewer than a byte's bits, and more than most codecs work through at a time."""
LARGEST_SUMMARY = 4096
"""Bytes: a broadcast goes to every node each round."""


class StrictSource(Vector):
    """A source that keeps to the letter of `Vector`: one memory for all reads, spoilt before each, NaN refused.

    Args:
        vector: float32 `[d]`.
    """

    def __init__(self, vector: Tensor) -> None:
        self.d = len(vector)
        self._vector, self._memory = vector, torch.empty(len(vector) + 3)

    def read(self, columns: slice, out: Tensor | None = None) -> Tensor:
        """Elements `columns`, without `out` at an address that is no multiple of 8.

        Raises:
            TaskError: A value is not finite.
        """
        self._memory.fill_(torch.nan)
        out = self._memory[3 : 3 + columns.stop - columns.start] if out is None else out
        out.copy_(self._vector[columns])
        if not out.isfinite().all():
            raise TaskError("not finite")
        return out


def encoded(codec: Codec, source: Vector, context: CodecContext) -> bytes:
    """All that `encode` yields."""
    return b"".join(bytes(piece) for piece in codec.encode(source, context))


def decoded(codec: Codec, data: bytes, d: int, layout: Layout | None = None) -> Tensor:
    """The whole vector, float32 `[d]`."""
    return codec.reader(data, d, layout).read(slice(0, d)).clone()


def gaussian(d: int, seed: int = 1) -> Tensor:
    """A vector to encode, float32 `[d]`: elements of very different sizes, as those of several layers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d, generator=generator) * 10 ** (torch.arange(d) * 3 % 7 / 3 - 2)


class CodecConformance(ABC):
    """Inherit, implement `make`, and pytest runs the contract against the codec."""

    unbiased: ClassVar[bool] = False
    """Over the seeds, what is decoded has the encoded vector as its mean."""
    idempotent: ClassVar[bool] = False
    """A vector that was decoded comes back exactly if it is encoded again."""
    refuses_non_finite: ClassVar[bool] = True
    """No bytes decode to a number that is not finite. (What the rows of a round hold is looked at anyway.)"""
    context: ClassVar[CodecContext] = CodecContext(seed=5, round=1, rounds=10)

    @abstractmethod
    def make(self) -> Codec:
        """The codec under test."""

    def vector(self, d: int) -> Tensor:
        """What is encoded, float32 `[d]`."""
        return gaussian(d)

    def message(self, d: int) -> bytes:
        """An encoded vector."""
        return encoded(self.make(), StrictSource(self.vector(d)), self.context)

    @pytest.mark.parametrize("d", SIZES)
    def test_size_is_what_the_codec_says(self, d: int) -> None:
        """Exactly, or at most."""
        codec, size = self.make(), len(self.message(d))
        assert size <= codec.encoded_bytes(d)
        assert size == codec.encoded_bytes(d) or not codec.fixed_size

    @pytest.mark.parametrize("d", SIZES)
    def test_bytes_do_not_depend_on_how_the_source_keeps_its_memory(self, d: int) -> None:
        """A source over a tensor, and one that uses one memory for all reads."""
        vector = self.vector(d)
        assert encoded(self.make(), TensorVector(vector), self.context) == self.message(d)

    def test_bytes_depend_on_the_seed_only_if_the_codec_says_so(self) -> None:
        """The same context gives the same bytes; another seed gives others only where the codec is stochastic."""
        d = 1000
        other = encoded(self.make(), StrictSource(self.vector(d)), replace(self.context, seed=6))
        assert self.message(d) == self.message(d)
        assert (other != self.message(d)) == self.make().stochastic

    @pytest.mark.parametrize("d", SIZES)
    def test_any_block_is_that_part_of_the_whole(self, d: int) -> None:
        """Random access, in any order, by `decode` and by `read`."""
        reader = self.make().reader(self.message(d), d)
        whole = reader.read(slice(0, d)).clone()
        assert reader.d == d
        assert whole.dtype == torch.float32
        assert whole.isfinite().all()
        for width in (1, 8, 17, 256) if d <= 1000 else (4096, 30_011, 1 << 16):
            for columns in reversed(spans(d, width)):
                out = torch.full((columns.stop - columns.start,), torch.nan)
                reader.read(columns, out)
                assert torch.equal(out, whole[columns])
                assert torch.equal(reader.read(columns), whole[columns])

    @pytest.mark.parametrize("d", SIZES)
    def test_signs_are_those_of_the_values(self, d: int) -> None:
        """Packed, lowest bit first, zero counts as positive, zero bits behind the last."""
        reader = self.make().reader(self.message(d), d)
        whole = reader.read(slice(0, d)).clone()
        for start in (0, 8, 64):
            columns = slice(start, d)
            if start <= d:
                wanted = np.packbits((whole[columns] >= 0).numpy(), bitorder="little")
                assert reader.signs(columns).tolist() == wanted.tolist()

    def test_bytes_are_not_modified_wherever_they_lie(self) -> None:
        """Read-only memory, memory at an odd address, a tensor."""
        d, data = 1000, self.message(1000)
        whole = decoded(self.make(), data, d)
        shifted = bytearray(b"x" + data)
        tensor = torch.tensor(list(data), dtype=torch.uint8)
        for buffer in (memoryview(data), memoryview(shifted)[1:], tensor):
            assert torch.equal(self.make().reader(buffer, d).read(slice(0, d)), whole)
        assert shifted == b"x" + data
        assert bytes(tensor.tolist()) == data

    def test_a_lossless_codec_gives_back_the_vector(self) -> None:
        """To the bit."""
        if not self.make().lossless:
            pytest.skip("the codec does not claim it")
        assert torch.equal(decoded(self.make(), self.message(1000), 1000), self.vector(1000))

    def test_a_second_round_trip_changes_nothing(self) -> None:
        """Of what was decoded once."""
        if not self.idempotent:
            pytest.skip("the codec does not claim it")
        for d in SIZES:
            first = decoded(self.make(), self.message(d), d)
            again = encoded(self.make(), TensorVector(first), self.context)
            assert torch.equal(decoded(self.make(), again, d), first)

    def test_the_mean_over_seeds_is_the_vector(self) -> None:
        """Within five standard errors in each of 200 elements, over 600 seeds."""
        if not self.unbiased:
            pytest.skip("the codec does not claim it")
        vector = self.vector(200)
        rows = []
        for seed in range(600):
            data = encoded(self.make(), TensorVector(vector), replace(self.context, seed=seed))
            rows.append(decoded(self.make(), data, len(vector)).double())
        samples = torch.stack(rows)
        # The floor is for elements that are nearly sure, whose sampled spread may be zero.
        tolerance = 5 * samples.std(0) / len(rows) ** 0.5 + vector.abs().max() * 1e-2
        assert ((samples.mean(0) - vector).abs() <= tolerance).all()
        error, noise = (samples.mean(0) - vector).norm(), (samples.std(0) / len(rows) ** 0.5).norm()
        assert error <= 1.5 * noise + 1e-6 * vector.norm()

    @pytest.mark.parametrize("d", [0, 1, 7, 100])
    def test_another_length_is_refused(self, d: int) -> None:
        """Every cut, and bytes behind the end."""
        data = self.message(d)
        for size in range(len(data)):
            with pytest.raises(CoveyError):
                self.make().reader(data[:size], d)
        for tail in (b"\0", b"\xff", bytes(100), data):
            if tail:
                with pytest.raises(CoveyError):
                    self.make().reader(data + tail, d)

    @pytest.mark.parametrize("seed", range(10))
    def test_random_bytes_are_refused_or_finite(self, seed: int) -> None:
        """Random bytes of the right length, and a message with some bytes changed."""
        generator = np.random.default_rng(seed)
        for d in (1, 7, 100, 1000):
            data = self.message(d)
            noise = generator.bytes(len(data))
            changed = bytearray(data)
            for at in generator.integers(0, len(data), 4):
                changed[at] = int(generator.integers(256))
            self._require_refused_or_finite(noise, d)
            self._require_refused_or_finite(bytes(changed), d)

    def _require_refused_or_finite(self, data: bytes, d: int) -> None:
        try:
            reader = self.make().reader(data, d)
        except CoveyError:
            return
        values = reader.read(slice(0, d))
        assert len(values) == d
        assert not self.refuses_non_finite or values.isfinite().all()

    def test_refuses_unknown_options(self) -> None:
        """An option that does not exist is refused, by name."""
        with pytest.raises(SpecError, match="no_such_option"):
            type(self.make())({"no_such_option": 1})

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_a_source_that_refuses_its_values_is_not_overheard(self, value: float) -> None:
        """The source's error ends the encoding."""
        vector = self.vector(100)
        vector[70] = value
        with pytest.raises(TaskError):
            encoded(self.make(), StrictSource(vector), self.context)

    @pytest.mark.parametrize("size", [0.0, 3.4e38, 1e30, 1e-30, 1e-45])
    def test_extreme_values_stay_finite(self, size: float) -> None:
        """Zeros, the largest and the smallest numbers, alone and among ordinary ones."""
        vector = self.vector(600).sign() * size
        for given in (vector, torch.cat([self.vector(600), vector])):
            data = encoded(self.make(), StrictSource(given), self.context)
            assert decoded(self.make(), data, len(given)).isfinite().all()

    def test_a_layout_changes_neither_sizes_nor_random_access(self) -> None:
        """Tensors of unequal size, one without elements."""
        counts = (1, 700, 0, 13, 300)
        layout = Layout(tuple(TensorSpec(f"t{i}", "float32", (count,)) for i, count in enumerate(counts)))
        codec, vector = self.make(), self.vector(layout.numel)
        data = encoded(codec, StrictSource(vector), replace(self.context, layout=layout))
        assert len(data) == codec.encoded_bytes(len(vector), layout) or not codec.fixed_size
        reader = codec.reader(data, len(vector), layout)
        whole = reader.read(slice(0, len(vector))).clone()
        for columns in spans(len(vector), 90):
            assert torch.equal(reader.read(columns), whole[columns])

    def test_the_summary_is_small_and_serves_the_next_round(self) -> None:
        """What `summary` says of a round's updates is a broadcast that `encode` takes."""
        codec = self.make()
        readers = [codec.reader(self.message(100), 100) for _ in range(3)]
        broadcast = codec.summary(readers, self.context)
        assert len(broadcast) <= LARGEST_SUMMARY
        assert codec.summarises or not broadcast
        following = replace(self.context, round=2, broadcast=broadcast)
        data = encoded(codec, StrictSource(self.vector(100)), following)
        assert decoded(codec, data, 100).isfinite().all()

    def test_a_codec_that_protects_examples_says_how(self) -> None:
        """Clipping and privacy are numbers that make sense, and belong to a private codec."""
        codec = self.make()
        clipping, privacy = codec.per_example, codec.privacy
        assert codec.private or (clipping is None and privacy is None)
        assert clipping is None or clipping.clip > 0
        assert privacy is None or (privacy.epsilon > 0 and 0 <= privacy.delta < 1 and privacy.noise > 0)

    def test_what_travels_down_is_a_codec_with_the_same_contract(self) -> None:
        """`downlink` gives a codec that encodes a vector and reads it back, and is its own downlink."""
        down = self.make().downlink()
        data = encoded(down, StrictSource(self.vector(100)), self.context)
        assert decoded(down, data, 100).isfinite().all()
        assert type(down.downlink()) is type(down)
