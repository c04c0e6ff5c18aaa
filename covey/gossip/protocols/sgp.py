"""Stochastic gradient push."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from covey.gossip.averaging import Averaging, rounds_for
from covey.gossip.protocols.contract import Combination, Protocol
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.spec import GossipSection


class StochasticGradientPush(Protocol):
    """Push-sum averaging between local trainings, in lock step or overlapped (`[gossip] overlap`).

    Source: Assran et al., "Stochastic Gradient Push for Distributed Deep Learning" (ICML 2019), algorithms 1 and 2.
    x = w z is kept as z and w (`covey.gossip.push_sum`): training begins at the de-biased z, and mixing is a mean
    weighted by mass.
    """

    averages = True
    encodes = True
    extra_models = 1.0

    @override
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        averaging = Averaging(section.global_every, rounds_for(nodes, section.global_spread))
        steps = averaging.steps(section.steps)
        return PushSumPolicy(steps, section.overlap, section.max_in_flight, averaging=averaging)

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        if run.spec.gossip.rate_correction is not None:
            text = f'protocol "{run.name}" makes as many steps on each node; leave it out, or choose "agp"'
            yield "gossip.rate_correction", text
