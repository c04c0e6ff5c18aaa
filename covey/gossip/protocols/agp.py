"""Asynchronous gradient push."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from covey.gossip.protocols.contract import Combination, Protocol
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.spec import GossipSection


class AsynchronousGradientPush(Protocol):
    """Push-sum averaging in which no node ever waits; `[gossip] rate_correction` makes slow and fast nodes count alike.

    Source: Assran and Rabbat, "Asynchronous Gradient Push" (IEEE TAC 66(1), 2021), algorithm 2. The corrections are in
    `covey.gossip.push_sum.rates`.
    """

    encodes = True
    extra_models = 1.0

    @override
    def policy(self, section: GossipSection, nodes: int) -> PushSumPolicy:
        correction = section.rate_correction or "elapsed"
        return PushSumPolicy(section.steps, None, section.max_in_flight, correction=correction)

    @override
    def refusals(self, run: Combination) -> Iterator[tuple[str, str]]:
        yield from super().refusals(run)
        if run.spec.gossip.overlap:
            yield "gossip.overlap", f'protocol "{run.name}" never waits, so it has no overlap; leave it out'
