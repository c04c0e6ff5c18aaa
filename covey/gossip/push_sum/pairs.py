"""Averaging in pairs without waiting: what a node gives when it asks another for its half, and what it gives back.

AD-PSGD (Lian et al., "Asynchronous Decentralized Parallel SGD", ICML 2018, algorithm 1) sets both
models of a pair to their mean; where both go on meanwhile, that is x_i += (sent_j - sent_i) / 2. With mass it reads:
each gives the other half of what it has. Who asks gives its half with its request, and who is asked gives as much back
with its next publication, before it mixes in what came; nobody waits, so there is no deadlock. What is owed follows
from the account alone: two that ask each other at the same time have answered each other. A node asks one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from covey.gossip.ledger import Incarnation, InEdge, OutEdge
from covey.gossip.push_sum.actions import Portion
from covey.gossip.push_sum.exchange import Exchange


def owed(exchange: Exchange, peer: Incarnation) -> int:
    """The units that a peer gave and has not had back; below 0: those that this node gave, and has not had back."""
    given, had = exchange.ledger.out.get(peer, OutEdge()), exchange.ledger.into.get(peer, InEdge())
    return had.applied - (given.sent - given.reclaimed)


def pair_parts(exchange: Exchange, candidates: Iterable[Incarnation], step: int) -> dict[Incarnation, int]:
    """The units for each peer in a step: answers, each at most half of what is left; then a request, of half of that.

    Args:
        exchange: The node's; what came is not mixed in yet.
        candidates: Whom the step's topology lets it ask; one after the other from step to step.
        step: The node's own.
    """
    kept, parts = exchange.kept, {}
    for peer in sorted(exchange.peers):
        if exchange.is_usable(peer) and (units := min(owed(exchange, peer), kept // 2)) > 0:
            parts[peer], kept = units, kept - units
    if any(owed(exchange, name) < 0 and peer.is_trusted for name, peer in exchange.peers.items()):
        return parts  # it has asked, and is not answered yet
    free = sorted(peer for peer in candidates if exchange.is_usable(peer) and peer not in parts)
    if free:
        after = [peer for peer in free if peer > exchange.me] + [peer for peer in free if peer < exchange.me]
        parts[after[step % len(after)]] = kept // 2
    return parts


def without_requests(exchange: Exchange, portions: Sequence[Portion], answered: int) -> list[Portion]:
    """What may be mixed in now: answers, and of requests those that there was an opportunity to answer.

    Args:
        exchange: The node's.
        portions: What came, in that order.
        answered: How many of them were there at the newest publication.
    """
    return [portion for k, portion in enumerate(portions) if k < answered or owed(exchange, portion.source) <= 0]
