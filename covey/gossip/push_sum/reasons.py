"""What a node waits for, in words."""

from __future__ import annotations

from collections.abc import Iterable

from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum.exchange import Exchange


def reason_of(phase: str, exchange: Exchange, missing: Iterable[Incarnation], needed: int, *, is_leaving: bool) -> str:
    """What a machine waits for; empty: nothing.

    Args:
        phase: The machine's.
        exchange: Its account, and its peers.
        missing: Whose batches the step waits for.
        needed: In which step they were sent.
        is_leaving: Whether the node was asked to leave.
    """
    match phase:
        case "settling":
            return f"waiting to hear from {_listed(exchange.unheard())} after a restart"
        case "sharing" if is_leaving:
            return _hand_over(exchange)
        case "sharing":
            busy = [peer for peer in exchange.published if exchange.is_busy(peer)]
            return f"waiting until {_listed(busy)} has the batch before"
        case "collecting":
            return f"waiting for what {_listed(missing)} sends in step {needed}"
        case "lingering":
            return "all steps are done; waiting for the others"
    return ""


def _hand_over(exchange: Exchange) -> str:
    """What keeps a leaver: a batch may have come, so its mass is nobody else's until who it goes to says so."""
    busy = [peer for peer in exchange.published if exchange.is_busy(peer)]
    away = [peer for peer in exchange.published if peer not in busy]
    if busy:
        return f"leaving: waiting until {_listed(busy)} has the batch on its way"
    rest = "the rest is handed over"
    if exchange.ledger.live and not any(map(exchange.is_usable, exchange.peers)):
        rest = "waiting for a peer that takes all mass; none shows signs of life"
    elif exchange.ledger.live:
        rest = "the rest is handed over in a moment"
    if not away:
        return f"leaving: {rest}"
    ends = " and ".join(map(_eviction, away))
    return (
        f"leaving: {rest}; waiting until {_listed(away)}, silent or refusing it, has the batch on its way; if it does "
        f"not come back, an admin has to evict it: {ends} (at a coordinator: covey node evict)"
    )


def _eviction(peer: Incarnation) -> str:
    """The command, but for what is the run's and the admin's."""
    return f"covey ca evict {peer.node}" + (f" --incarnation {peer.number}" if peer.number > 1 else "")


def _listed(peers: Iterable[Incarnation]) -> str:
    return ", ".join(map(str, peers)) or "nobody"
