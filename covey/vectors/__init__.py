"""Vectors of float32 that are read block by block, wherever their elements come from: a tensor, an encoded file, a sum.

None of them is ever whole in memory; a result is computed where somebody reads it.
"""

from covey.vectors.combination import LinearCombination
from covey.vectors.contract import BLOCK_ELEMENTS, ComputedVector, Vector, placed, spans
from covey.vectors.finite import all_finite, is_finite
from covey.vectors.functions import FunctionVector
from covey.vectors.signs import PackedSigns
from covey.vectors.tensors import TensorVector

__all__ = [
    "BLOCK_ELEMENTS",
    "ComputedVector",
    "FunctionVector",
    "LinearCombination",
    "PackedSigns",
    "TensorVector",
    "Vector",
    "all_finite",
    "is_finite",
    "placed",
    "spans",
]
