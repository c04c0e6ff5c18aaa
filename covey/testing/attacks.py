"""What every attack must keep, as tests that the author of one inherits.

class TestMine(AttackConformance):
    def make(self) -> Attack:
        return Mine({"strength": 2})
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from covey.aggregation.attacks import Attack, AttackContext
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed, SpecError
from covey.vectors import TensorVector, Vector, spans

ROUNDS = 3
TOLERANCE = 1e-5


class AttackConformance(ABC):
    """Inherit, implement `make`, and pytest runs the contract against the attack."""

    d = 66_003

    @abstractmethod
    def make(self) -> Attack:
        """The attack under test."""

    def rows(self, number: int = 1) -> Tensor:
        """What honest nodes send in a round, float32 `[8, d]`."""
        return torch.randn(8, self.d, generator=torch.Generator().manual_seed(number)) + 0.3

    def own(self, number: int = 1) -> Tensor:
        """What the adversary would honestly send in a round, float32 `[d]`."""
        return torch.randn(self.d, generator=torch.Generator().manual_seed(1000 + number))

    def context(self, rows: Tensor | None, number: int = 1) -> AttackContext:
        """A round of 11 nodes, of which 3 are adversaries."""
        known = None if rows is None else UpdateMatrix.of(rows)
        change = TensorVector(torch.full((self.d,), 0.1))
        return AttackContext(number, 7, node=9, nodes=11, attackers=3, known=known, change=change)

    def sent(self) -> list[Tensor]:
        """What a fresh adversary sends in some rounds, its memory carried along."""
        attack, memory, vectors = self.make(), dict[str, Tensor](), []
        for number in range(1, ROUNDS + 1):
            context = replace(self.context(self.rows(number), number), memory=memory)
            own = TensorVector(self.own(number))
            vectors.append(_dense(attack.vector(own, context)))
            memory = {name: _dense(vector) for name, vector in attack.remembered(own, context).items()}
        return vectors

    def test_gives_float32_of_the_right_length_whatever_the_blocks(self) -> None:
        """The vector is float32 `[d]`, and the same in whatever blocks it is read."""
        vector = self.make().vector(TensorVector(self.own()), self.context(self.rows()))
        whole = _dense(vector)
        assert (whole.dtype, whole.shape, vector.d) == (torch.float32, (self.d,), self.d)
        for width in (1000, 70_000):
            torch.testing.assert_close(_dense(vector, width), whole, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)

    def test_can_be_read_twice(self) -> None:
        """A codec may read the vector more than once."""
        vector = self.make().vector(TensorVector(self.own()), self.context(self.rows()))
        torch.testing.assert_close(_dense(vector), _dense(vector), rtol=0, atol=0, equal_nan=True)

    def test_repeats_itself(self) -> None:
        """Two fresh adversaries in the same rounds send the same, bit for bit."""
        for first, other in zip(self.sent(), self.sent(), strict=True):
            torch.testing.assert_close(first, other, rtol=0, atol=0, equal_nan=True)

    def test_modifies_nothing(self) -> None:
        """Neither its own vector nor those that it knows."""
        rows, own = self.rows(), self.own()
        attack, context = self.make(), self.context(rows)
        _dense(attack.vector(TensorVector(own), context))
        _all(attack.remembered(TensorVector(own), context))
        assert torch.equal(rows, self.rows())
        assert torch.equal(own, self.own())

    def test_says_what_it_needs(self) -> None:
        """An omniscient attack refuses to act without known vectors; any other acts."""
        attack, own = self.make(), TensorVector(self.own())
        if not attack.omniscient:
            assert _dense(attack.vector(own, self.context(None))).shape == (self.d,)
            return
        with pytest.raises(RunFailed, match="needs to know at least"):
            attack.vector(own, self.context(None))

    def test_refuses_unknown_options(self) -> None:
        """A misspelt option is an error that names it."""
        with pytest.raises(SpecError, match=r"attack\.options\.no_such_option"):
            type(self.make())({"no_such_option": 1})


def _dense(source: Vector, width: int = 1 << 20) -> Tensor:
    return torch.cat([source.read(columns).clone() for columns in spans(source.d, width)])


def _all(vectors: Mapping[str, Vector]) -> None:
    for vector in vectors.values():
        _dense(vector)
