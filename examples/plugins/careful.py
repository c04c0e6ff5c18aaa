"""Mixing weights for Covey: little at first, and by how many nodes are there."""

from fractions import Fraction

from covey.gossip.mixing import Mixing
from covey.options import PluginOptions
from pydantic import Field


class Careful(Mixing):
    """1 / n along each edge that goes both ways, with n nodes there; less in the first steps.

    Symmetric, so doubly stochastic: "maximum-degree weights" of Xiao and Boyd, "Fast linear iterations for distributed
    averaging" (2004), with n - 1 for the largest degree. The first `warm_up` steps grow to it evenly.
    """

    class Options(PluginOptions):
        """[gossip.mixing] options of `careful`."""

        warm_up: int = Field(default=10, ge=1)

    options: Options
    needs_symmetric = True
    doubly_stochastic = True

    def shares(self, graph, node, step, swarm):
        grown = Fraction(min(step + 1, self.options.warm_up), self.options.warm_up)
        return dict.fromkeys(graph[node], grown / len(swarm.nodes))
