"""Bucketing: random groups of updates are averaged before a rule sees them."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from covey.aggregation.contract import AggregationContext, PluginOptions, PreAggregator
from covey.aggregation.matrix import UpdateMatrix
from covey.errors import RunFailed
from covey.seeds import derive_seed
from covey.vectors import spans


class Bucketing(PreAggregator):
    """The updates in a random order, cut into buckets of s, each replaced by its mean.

    Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing" (ICLR 2022, arXiv
    2006.09365), Algorithm 1. n rows become ceil(n / s), of which f may still be Byzantine: the rule's own assumption is
    checked against ceil(n / s). The last bucket may have fewer than s updates, and counts the same.

    There are no verdicts on single nodes: all nodes of a bucket share its fate. The order is drawn from the run's seed
    and the round, so whoever knows the seed knows the buckets in advance.
    """

    class Options(PluginOptions):
        """Options of bucketing."""

        s: int = Field(default=2, ge=1)
        """Updates in a bucket; 1 leaves the updates as they are."""

    options: Options

    def rows_needed(self, wanted: int) -> int:
        """The fewest n with ceil(n / s) >= wanted."""
        return max((wanted - 1) * self.options.s + 1, 1)

    def weights(self, updates: UpdateMatrix, context: AggregationContext) -> Tensor:
        """Float64 `[ceil(n / s), n]`: one over the bucket's size at its members.

        Raises:
            RunFailed: No rows.
        """
        n, s = updates.n, self.options.s
        if n < 1:
            raise RunFailed("Bucketing needs at least 1 update, the round has 0")
        if s == 1:
            return torch.eye(n, dtype=torch.float64)
        generator = torch.Generator().manual_seed(derive_seed(context.seed, "bucketing", context.round))
        order = torch.randperm(n, generator=generator)
        mixing = torch.zeros(-(-n // s), n, dtype=torch.float64)
        for row, members in zip(mixing, spans(n, s), strict=True):
            row[order[members]] = 1.0 / len(order[members])
        return mixing
