"""What the processes of one node have, brought together, with its gradient.

Where a node trains in several processes (`torch.distributed`), each with a share of the batch, losses that compare
examples need those of all processes; these functions make loss and gradient what one process with the whole batch has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Gather(ABC):
    """The processes of a node. All call the same methods in the same order, with tensors of the same shape.

    Each computes a loss that is the mean over its own examples, and the gradients of the parameters are averaged over
    the processes; then loss (averaged) and gradients are those of the concatenated batch.

    Attributes:
        rank: This process' place among them; its rows are there in what `rows` gives.
    """

    rank: int = 0

    @abstractmethod
    def rows(self, own: Tensor) -> Tensor:
        """The rows of all processes, one after the other: `[n, ...]` to `[processes * n, ...]`."""

    @abstractmethod
    def mean(self, own: Tensor) -> Tensor:
        """The mean over the processes."""


class Alone(Gather):
    """One process."""

    def rows(self, own: Tensor) -> Tensor:
        """Its own."""
        return own

    def mean(self, own: Tensor) -> Tensor:
        """Its own."""
        return own


class Processes(Gather):
    """Those of a process group.

    Args:
        group: The group; None: the default one, which is initialised.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group, self.rank = group, dist.get_rank(group)

    def rows(self, own: Tensor) -> Tensor:
        """All processes' rows; the gradient of a process' own is the sum of what all processes' losses make of it."""
        together: Tensor = _Rows.apply(own, self._group)  # type: ignore[no-untyped-call]
        return together

    def mean(self, own: Tensor) -> Tensor:
        """The mean; its gradient is the mean of all processes' gradients."""
        mean: Tensor = _Mean.apply(own, self._group)  # type: ignore[no-untyped-call]
        return mean


def gathering() -> Gather:
    """The processes among which this one trains: the default process group, where there is one."""
    return Processes() if dist.is_available() and dist.is_initialized() else Alone()


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group, ctx.count = group, len(own)
        pieces = [
            torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))
        ]
        dist.all_gather(pieces, own.contiguous(), group=group)
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        total = slopes[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        first = dist.get_rank(ctx.group) * ctx.count
        return total[first : first + ctx.count], None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        return _averaged(own, group)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return _averaged(slopes[0], ctx.group), None


def _averaged(own: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    total = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total / dist.get_world_size(group)
