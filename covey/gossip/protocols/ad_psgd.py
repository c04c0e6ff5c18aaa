"""Averaging in pairs, without waiting."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from covey.gossip.protocols.contract import Combination, Protocol
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.spec import GossipSection


class PairAveraging(Protocol):
    """AD-PSGD: a node asks one of those that the topology lets it send to, and both come to their mean; nobody waits.

    Source: Lian et al., "Asynchronous Decentralized Parallel Stochastic Gradient Descent" (ICML 2018), algorithm 1;
    here in additive form, x_i += (sent_j - sent_i) / 2, with mass (`covey.gossip.push_sum.pairs`). Deviations: who asks
    trains on instead of waiting for the answer, with the half that it kept, so that x moves as if it had all; and
    `[gossip] rate_correction` (by default elapsed) makes slow and fast nodes count alike, where the paper's count by
    their speed. At rest each has the mass that it began with, so who joins later needs some of its own.
    """

    encodes = True
    joins = "mint"
    extra_models = 1.0

    @override
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        correction = section.rate_correction or "elapsed"
        return PushSumPolicy(section.steps, None, section.max_in_flight, correction=correction, pairs=True)

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        if run.spec.gossip.overlap:
            yield "gossip.overlap", f'protocol "{run.name}" never waits, so it has no overlap; leave it out'
        if run.spec.gossip.mixing.name != "uniform":
            text = f'protocol "{run.name}" gives half of the mass, whatever the mixing weights are; leave it out'
            yield "gossip.mixing", text
        if run.spec.gossip.join == "split":
            text = f'with protocol "{run.name}" who is asked gives back as much as it had, so a node that joins without'
            yield "gossip.join", f'{text} mass would stay without; write "mint", or leave it out'
