"""Error feedback: what a codec loses of one vector is added to the next.

Stich, Cordonnier and Jaggi (NeurIPS 2018, arXiv 1809.07599); Karimireddy et al. (ICML 2019, arXiv 1901.09847):
p = g + e is what is encoded, and e' = p - decode(encode(p)) is what is kept. So all that was sent and the residual add
up to the sum of all vectors, but for float32 rounding.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from covey.errors import TaskError
from covey.outgoing.contract import LocalState, Stage
from covey.vectors import LinearCombination, Vector, is_finite

RESIDUAL = "residual"


class ErrorFeedback(Stage):
    """Adds what was lost of the last accepted update, and keeps what is lost of this one."""

    keeps: ClassVar[tuple[str, ...]] = (RESIDUAL,)

    def __init__(self) -> None:
        self._sent: Vector | None = None

    @override
    def leave(self, vector: Vector, state: LocalState) -> Vector:
        self._sent = with_residual(vector, state.before(RESIDUAL))
        return self._sent

    @override
    def after(self, decoded: Vector, state: LocalState) -> None:
        if self._sent is None:
            raise RuntimeError("nothing has passed")
        state.keep(RESIDUAL, lost(self._sent, decoded))


class Accumulated(LinearCombination):
    """Vectors added up, of which the result must be finite."""

    @override
    def decode(self, columns: slice, out: Tensor) -> None:
        """Write elements `columns` of the sum into `out`.

        Raises:
            TaskError: A value is not finite.
        """
        super().decode(columns, out)
        if not is_finite(out):
            raise TaskError("error feedback has added up to values that are not finite; lower training.learning_rate")


def with_residual(vector: Vector, residual: Vector | None) -> Vector:
    """A vector with what was lost of the last one: p = g + e, block by block.

    Args:
        vector: g, of `d` elements.
        residual: e, of as many; None: zeros.

    Raises:
        ValueError: They have different lengths.
    """
    return vector if residual is None else Accumulated([(vector, 1.0), (residual, 1.0)])


def lost(vector: Vector, decoded: Vector) -> Vector:
    """What an encoding lost of a vector, e' = p - decode(encode(p)), which is to be added to the next one.

    Args:
        vector: p, which was encoded.
        decoded: What its bytes decode to.
    """
    return Accumulated([(vector, 1.0), (decoded, -1.0)])
