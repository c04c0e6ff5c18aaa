"""Error feedback: what a codec loses of one vector is added to the next.

Stich, Cordonnier and Jaggi (NeurIPS 2018, arXiv 1809.07599); Karimireddy et al. (ICML 2019, arXiv 1901.09847):
p = g + e is what is encoded, and e' = p - decode(encode(p)) is what is kept. So all that was sent and the residual add
up to the sum of all vectors, but for float32 rounding.
"""

from __future__ import annotations

from torch import Tensor

from covey.errors import TaskError
from covey.vectors import LinearCombination, Vector, is_finite


class Accumulated(LinearCombination):
    """Vectors added up, of which the result must be finite."""

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
