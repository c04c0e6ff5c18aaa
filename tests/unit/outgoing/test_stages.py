"""What an update passes on its way out, with what the node keeps in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from covey.codecs.contract import CodecContext
from covey.codecs.sparse import TopK
from covey.outgoing.contract import LocalState, Stage, send
from covey.outgoing.error_feedback import RESIDUAL, ErrorFeedback
from covey.outgoing.momentum import MOMENTUM, WorkerMomentum
from covey.vectors import LinearCombination, TensorVector, Vector

D = 50


class Memory(LocalState):
    """What was kept with the last update, and what is kept with this one."""

    def __init__(self, old: dict[str, Tensor] | None = None) -> None:
        self.old, self.new = old or {}, dict[str, Tensor]()

    @override
    def before(self, name: str) -> Vector | None:
        return TensorVector(self.old[name]) if name in self.old else None

    @override
    def keep(self, name: str, vector: Vector) -> Vector:
        self.new[name] = vector.dense().clone()
        return TensorVector(self.new[name])


def sent(vector: Tensor, state: Memory, *stages: Stage) -> Tensor:
    """What arrives of a vector of which a tenth is sent."""
    codec, encoded = TopK({"k": 5}), list[bytes]()
    send(
        TensorVector(vector),
        stages,
        state,
        encode=lambda v: encoded.append(b"".join(map(bytes, codec.encode(v, CodecContext(seed=0, round=1))))),
        decoded=lambda: codec.reader(encoded[0], D),
    )
    return codec.reader(encoded[0], D).dense().clone()


def numbers(seed: int) -> Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(seed))


def test_without_stages_the_codec_gets_the_vector_and_nothing_is_kept() -> None:
    vector, state = numbers(1), Memory()
    arrived = sent(vector, state)
    assert torch.equal(arrived[arrived != 0], vector[arrived != 0])
    assert state.new == {}


def test_momentum_is_what_goes_on_and_what_is_kept() -> None:
    first, second, state = numbers(1), numbers(2), Memory()
    sent(first, state, WorkerMomentum(0.75))
    torch.testing.assert_close(state.new[MOMENTUM], 0.25 * first)
    state = Memory(state.new)
    arrived = sent(second, state, WorkerMomentum(0.75))
    torch.testing.assert_close(state.new[MOMENTUM], 0.25 * second + 0.75 * 0.25 * first)
    assert torch.equal(arrived[arrived != 0], state.new[MOMENTUM][arrived != 0])


def test_what_was_lost_is_added_to_the_next_vector_behind_the_momentum() -> None:
    first, second, state = numbers(1), numbers(2), Memory()
    arrived = sent(first, state, WorkerMomentum(0.5), ErrorFeedback())
    torch.testing.assert_close(arrived + state.new[RESIDUAL], 0.5 * first)
    before = state.new
    state = Memory(before)
    arrived = sent(second, state, WorkerMomentum(0.5), ErrorFeedback())
    torch.testing.assert_close(arrived + state.new[RESIDUAL], state.new[MOMENTUM] + before[RESIDUAL])


def test_a_stage_that_takes_the_vectors_place_is_all_that_later_ones_see() -> None:
    class Negated(Stage):
        @override
        def leave(self, vector: Vector, state: LocalState) -> Vector:
            return LinearCombination([(vector, -1.0)])

    vector, state = numbers(1), Memory()
    arrived = sent(vector, state, Negated(), ErrorFeedback())
    torch.testing.assert_close(arrived + state.new[RESIDUAL], -vector)
