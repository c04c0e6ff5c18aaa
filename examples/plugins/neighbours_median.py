"""A protocol of gossip for Covey: towards the median of a node's and its neighbours' models."""

from covey.gossip.protocols.contract import Update
from covey.gossip.protocols.receiving import Receiving
from covey.options import PluginOptions
from pydantic import Field


class NeighboursMedian(Receiving):
    """x_i <- x_i + pull (m - x_i), with m in each coordinate the median of x_i and of what came in the step."""

    class Options(PluginOptions):
        """[gossip.protocol.options] of `neighbours-median`."""

        pull: float = Field(default=1.0, gt=0, le=1)

    options: Options

    def refusals(self, run):
        yield from super().refusals(run)
        if run.mixing.needs_symmetric:
            yield "gossip.mixing", f'protocol "{run.name}" has no weights; leave it out'

    def mix(self, state, received, context):
        models = [state.model, *(other.model for other in received)]
        median = context.algebra.trimmed_mean(models, (len(models) - 1) // 2)
        pull = self.options.pull
        return Update(context.algebra.combination([(median, pull), (state.model, -pull)]))
