"""What protocols have in common in which the receiver weighs what comes: they are in lock step, and have no mass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field
from typing_extensions import override

from covey.gossip.graph import in_neighbours
from covey.gossip.mixing import Uniform
from covey.gossip.protocols.contract import Combination, Protocol
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.options import PluginOptions
from covey.spec import GossipSection


class Receiving(Protocol):
    """A step's models are mixed by whoever receives them, in the step in which they were sent.

    A model that does not come (its sender is away, or sent what is no finite model) or comes late does not count: its
    weight stays with the node's own. Mass means nothing; the accounts count batches, each applied once.

    Class attributes:
        needs_doubly_stochastic: Whether the mixing weights have to be symmetric, with rows that sum to one, so that the
            mean of all models is kept.
        takes_circulant: Whether rows and columns that sum to one are enough: then equal weights will do where edges
            look the same from each node, directed ones too.
    """

    weighs = "receiver"
    needs_doubly_stochastic: ClassVar[bool] = False
    takes_circulant: ClassVar[bool] = False

    @override
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        return PushSumPolicy(section.steps, 0, section.max_in_flight, least=0, weighs=self.weighs)

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        section = run.spec.gossip
        if section.overlap:
            text = f'protocol "{run.name}" weighs models of one step against each other; leave it out, or choose "sgp"'
            yield "gossip.overlap", text
        if section.rate_correction is not None:
            text = f'protocol "{run.name}" makes as many steps on each node; leave it out, or choose "agp"'
            yield "gossip.rate_correction", text
        is_circulant = run.topology.circulant and isinstance(run.mixing, Uniform)
        if not self.needs_doubly_stochastic or (self.takes_circulant and is_circulant):
            return
        if not run.is_symmetric and not run.mixing.needs_symmetric:  # which says so itself
            text = f'protocol "{run.name}" needs edges that go both ways; choose "ring", "complete" or "matching"'
            yield "gossip.topology", f'{text}, or protocol "sgp"'
        if not run.mixing.doubly_stochastic:
            text = f'with "{section.mixing.name}" the mean of all models is not kept; choose "metropolis-hastings"'
            yield "gossip.mixing", text


class RobustOptions(PluginOptions):
    """Options of a robust protocol."""

    f: int = Field(default=1, ge=1, le=1024)
    """How many of a node's neighbours may be Byzantine."""


class Robust(Receiving):
    """One that bounds what `f` Byzantine neighbours can do to a node, which needs at least so many neighbours.

    Class attributes:
        least: Neighbours that a node needs for each Byzantine one, and so many more.
    """

    Options = RobustOptions
    options: RobustOptions
    extra_models = 2.0
    least: ClassVar[tuple[int, int]] = (2, 1)

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        f, needed = self.options.f, self.least[0] * self.options.f + self.least[1]
        degrees = [len(sources) for graph in run.least_graphs for sources in in_neighbours(graph)]
        if min(degrees, default=needed) < needed:
            text = f"with {f} Byzantine neighbours a node needs {needed} in each step, and one has {min(degrees)}"
            more = "more nodes"
            if not run.nodes:
                text = f"{text} where the run begins with {run.begins_with} nodes, as [gossip] min_nodes allows"
                more = "a larger min_nodes"
            yield "gossip.protocol.options.f", f'{text}: choose topology "complete", {more}, or a smaller f'
