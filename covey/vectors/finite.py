"""Whether numbers are finite: one test for blocks that are held against the peer, and for those of a node's own."""

from __future__ import annotations

import torch
from torch import Tensor

from covey.vectors.contract import BLOCK_ELEMENTS, Vector, spans


def is_finite(block: Tensor) -> bool:
    """Whether a block has neither NaN nor infinity.

    Costs about one read: either shows in the block's sum. A sum may also overflow without them, so only where it is not
    finite the elements are looked at.
    """
    return bool(torch.isfinite(block.sum())) or bool(torch.isfinite(block).all())


def all_finite(vector: Vector, width: int = BLOCK_ELEMENTS) -> bool:
    """Whether every element of a vector is a finite number."""
    return all(is_finite(vector.read(columns)) for columns in spans(vector.d, width))
