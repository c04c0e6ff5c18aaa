"""An aggregator for Covey: the mean around the median."""

import torch
from covey.aggregation.contract import Aggregate, Aggregator, BlockRule, ByzantineOptions, Verdict


class MeaMed(Aggregator):
    """Coordinate-wise mean of the n - f values that are nearest to the median.

    Xie, Koyejo, Gupta: "Generalized Byzantine-tolerant SGD" (arXiv 1802.10116). Assumes n > 2f.
    """

    class Options(ByzantineOptions):
        """Options of `meamed`: f, how many updates may be Byzantine."""

    options: Options

    def min_updates(self) -> int:
        return 2 * self.options.f + 1

    def aggregate(self, updates, state, context):
        self.require(updates)
        keep = updates.n - self.options.f

        def rule(slab: torch.Tensor) -> torch.Tensor:  # float32 [n, b] to float32 [b]
            median = slab.median(dim=0).values
            nearest = (slab - median).abs_().topk(keep, dim=0, largest=False).indices
            return slab.gather(0, nearest).mean(dim=0)

        verdicts = tuple(Verdict(row.node, "accepted", share=row.weight) for row in updates.rows)
        return Aggregate(BlockRule(updates, rule), verdicts)
